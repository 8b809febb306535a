"""LIBERO (arXiv 2306.03310): 130 tasks on robosuite 1.4, in an environment of their own."""
