"""Static graphs for eager models: export, build, verify, load. Nothing here knows a robot."""
