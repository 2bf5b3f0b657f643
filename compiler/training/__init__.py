"""Coefficients and sigmas trained by gradient through the sampler."""
