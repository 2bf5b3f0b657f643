"""How `budc run` generates: with diffusers, with ONNX Runtime, or several methods side by side."""
