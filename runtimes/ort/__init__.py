"""ONNX Runtime underneath `budc.runtimes.onnxruntime`: providers, device memory, the denoising loop."""
