"""A grid of trainings and evaluations: what it consists of, what it costs, and running it."""
