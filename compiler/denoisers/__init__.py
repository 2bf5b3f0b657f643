"""What a policy is searched for: a denoiser that computes or reuses, alone, in micro-batches, over prompt sets."""
