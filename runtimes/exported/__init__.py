"""The format of an ONNX export: its manifest, its graphs, its folder."""
