"""Learning a small OpenVLA-format policy from demonstrations; never imported to act."""
