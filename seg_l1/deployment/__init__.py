"""Deployment: networks as ONNX files, and prediction with onnxruntime alone."""
