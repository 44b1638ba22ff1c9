"""Studies: grids of trainings and evaluations, their cost, and running them."""
