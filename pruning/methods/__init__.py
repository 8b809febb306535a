"""One pruning method per file; `pruning.registry` knows them by name."""
