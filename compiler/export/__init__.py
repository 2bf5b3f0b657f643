"""Export of a model folder to graphs that a runtime without torch can run (`budc export onnx`)."""
