"""A model in the form that other programs load."""
