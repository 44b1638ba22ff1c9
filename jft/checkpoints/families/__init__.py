"""Families of models: what their files say, and how. A new one is added here alone."""
