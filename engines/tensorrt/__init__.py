"""TensorRT and TensorRT-RTX: ONNX to plans, what is inside them, and how they run."""
