# The control plane: registers model versions, governs config changes, converges Triton servers, keeps the history.
__version__ = "0.1.0"
