"""Between a policy and a robot, without ROS: decode, pair, execute, limit, guard.

Time is handed in and never read, and messages are read by attribute only, so that a node, a test
and a recording run through the same code with the same decisions.
"""
