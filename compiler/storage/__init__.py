"""What survives a kill: the journal of measurements, and tensors beside it."""
