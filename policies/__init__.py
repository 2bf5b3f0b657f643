"""Model profiles, calibration and held-out prompts, and the embedded nano models."""
