"""The transformer, and getting its weights from and to files."""
