"""Methods around methods: `quota+divprune`, `smooth:weight=0.5+fastv`, `reuse+quota+vla_pruner`."""
