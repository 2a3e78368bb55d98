# Entry point of `tritonctl` and `python -m controlplane`.
