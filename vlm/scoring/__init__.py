"""How benchmarks score an answer: one file per rule, as the benchmark's own evaluation does it."""
