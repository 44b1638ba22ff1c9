"""How fast jft is beside others, on the same work."""
