# Use cases; they own the transactions and reach Triton and the artifact store only through ports.
