"""Rows: from files and libraries to examples of tasks."""
