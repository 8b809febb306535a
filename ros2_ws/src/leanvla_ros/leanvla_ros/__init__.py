"""LeanVLA on a robot: thin ROS 2 nodes around `policy.robot`, where every decision is made."""
