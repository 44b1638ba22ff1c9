"""Scores of a model on data sets, and what they are worth: metrics, intervals, tests."""
