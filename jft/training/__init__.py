"""The training step, its checkpoints and its loop."""
