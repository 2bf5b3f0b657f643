"""Whether an embedded model shows what its prompt asks for."""
