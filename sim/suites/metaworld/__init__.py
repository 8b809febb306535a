"""Meta-World's MT10 and MT50 (arXiv 1910.10897, 2505.11289), in an environment of their own."""
