"""Compiled models on a GPU, beside its limits and torch: `python -m benchmarks.gpu`."""
