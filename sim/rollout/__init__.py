"""Rollouts: workers, their watchdog, and the store of finished episodes."""
