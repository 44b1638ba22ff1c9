"""Benchmarks: the speed of jft beside that of others, on the same work."""
