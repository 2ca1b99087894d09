"""Changes to an ONNX graph that somebody else wrote."""
