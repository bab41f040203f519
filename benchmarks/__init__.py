"""Benchmarks: how fast the engine is, beside its peers, in one run and on the same input."""
