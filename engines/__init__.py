"""Static graphs instead of eager models: export, build, verify, load. Nothing here knows a robot."""
