"""The tokenizers of the embedded models."""
