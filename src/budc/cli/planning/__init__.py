"""What a compile will cost: what is asked for, and what is estimated of it."""
