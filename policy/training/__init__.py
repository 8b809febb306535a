"""Learning a small OpenVLA-format policy from demonstrations. Needs torch; never imported to act."""
