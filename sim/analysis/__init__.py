"""From recorded episodes to statements: pairs, intervals, budgets, recall. Reads, never runs."""
