"""Recorded episodes: reading them in every common layout, replaying, recording and converting."""
