"""One module per verb: a frozen dataclass of its arguments; `run` gives the exit code."""
