"""Tools for those who work on jft; none of them is installed with it."""
