# The embedded Triton server: find, stage and launch it; its onnxruntime backend.
