"""The configurations of the embedded models, on diffusers' own classes."""
