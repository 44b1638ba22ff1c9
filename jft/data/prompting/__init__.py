"""Prompting: from examples to token sequences, the only place that makes a prompt."""
