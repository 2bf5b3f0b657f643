"""What search and every runtime share: steps, the trunk, transformer families, schedulers, solvers."""
