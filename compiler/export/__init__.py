"""Export: a model folder becomes graphs that a runtime without torch can drive (`budc export onnx`)."""
