"""Models of real size with random weights: a forward takes as long as with trained ones, and nothing is downloaded."""
