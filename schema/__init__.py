"""The artifact format: what a policy file holds, how it is signed, and how it is refused.

This package imports neither torch, numpy nor onnx. `docs/spec/artifact-v1.md` says the same in prose.
"""
