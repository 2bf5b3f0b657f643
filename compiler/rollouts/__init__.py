"""From noise to final latents on tensors alone: the reference run, a policy, or a tree of candidates."""
