"""Sweeps: many rollouts in one store that knows what each episode depends on."""
