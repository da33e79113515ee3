"""From a model in another form (a torch module, an ONNX file) to a Graph."""
