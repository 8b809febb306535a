"""What a robot shows, what a policy says, and the model families that turn one into the other."""
