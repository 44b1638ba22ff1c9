"""The measurement of a GPU or TPU, in parts that fail and run out of time by themselves."""
