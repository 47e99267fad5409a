"""XMPP: client streams, messages, end-to-end objects (RFC 6120, 6121, 3923)."""
