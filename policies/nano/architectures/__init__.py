"""The components of the embedded models, on the classes of diffusers and transformers."""
