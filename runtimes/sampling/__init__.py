"""What the search and every runtime share: the step machine, the trunk, transformer families, schedulers, solvers."""
