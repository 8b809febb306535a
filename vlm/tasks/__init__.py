"""Benchmarks: readers of their published files, one a file."""
