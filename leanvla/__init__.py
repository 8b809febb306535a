"""LeanVLA: vision-language-action policies that look at fewer tokens."""

__version__ = "0.1.0"
