"""From a user's ONNX to the typed ONNX that is compiled: preprocessing in the graph, precision in the types."""
