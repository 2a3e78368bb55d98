# What talks to the outside: the SDK of our HTTP API and typed inference. Never imports controlplane.
