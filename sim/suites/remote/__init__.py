"""Suites whose packages cannot live beside ours: a worker in an interpreter of its own."""
