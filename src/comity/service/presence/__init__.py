"""Presence: who is there, who watches, and who may (RFC 3859, 3857, 5025, 6121)."""
