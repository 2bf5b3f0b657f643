"""What a policy is searched for: a network in its two modes, computed or reused, over whole prompt sets."""
