"""Benchmarks: how fast the renderer, the synthesis and a training step are, with the alternatives in the same run."""
