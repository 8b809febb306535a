"""The OpenVLA family as an engine: stages, their export, and a policy that runs without torch."""
