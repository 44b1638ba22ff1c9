"""The training step and its loop, with probes while it runs and drift after it."""
