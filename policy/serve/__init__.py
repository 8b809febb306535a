"""Policies over a websocket, in the message layout of openpi's client and server."""
