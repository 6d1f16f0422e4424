"""The training loop: state, optimizer and schedule, the step, evaluation and checkpoints."""
