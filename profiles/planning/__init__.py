"""The planner: how much fits, how fast it runs, and why, before a GPU is rented."""
