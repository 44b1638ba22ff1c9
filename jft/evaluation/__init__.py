"""Scores of a model on datasets, and what they are worth: metrics, intervals, tests."""
