"""From a trained run to an ONNX bundle that answers as the run does: graph, precisions, gate, card."""
