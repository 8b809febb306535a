"""Stages with static shapes: export, build, verify, load, profile. Knows nothing of robots."""
