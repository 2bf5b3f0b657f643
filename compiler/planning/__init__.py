"""What a compile costs before anyone pays for it: forwards, FLOPs, memory, hours."""
