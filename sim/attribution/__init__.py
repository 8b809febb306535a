"""Where a pruned episode was lost: saved states, continuations, bisection."""
