"""The OpenVLA family: published checkpoints, read as they are and run by our own network."""
