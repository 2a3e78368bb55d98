# Frozen dataclasses and pure functions: no I/O, no clock, no randomness. Configs are JSON trees here.
