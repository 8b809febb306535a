"""Suites, experts, demonstrations, rollouts and their statistics."""
