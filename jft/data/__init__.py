"""Data: from examples in files to batches of prefix trees."""
