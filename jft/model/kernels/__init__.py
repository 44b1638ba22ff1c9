"""Attention along prefix trees on GPUs and TPUs, in Pallas."""
