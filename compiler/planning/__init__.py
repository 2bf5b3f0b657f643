"""What a compile will cost, known before it starts: forwards, FLOPs, memory, hours."""
