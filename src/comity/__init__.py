"""Comity: one message format, any protocol. See docs/topics/path-of-a-message.md for the way in."""

__version__ = "0.1.0.dev0"
