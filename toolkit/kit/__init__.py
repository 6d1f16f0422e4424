"""For authors of plugins: the conformance kit and the doctor."""
