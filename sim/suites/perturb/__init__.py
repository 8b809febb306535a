"""Episodes that look, sound or begin a little differently, over any suite."""
