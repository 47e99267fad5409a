"""SIP: MESSAGE, registrar and digest (RFC 3261, 3428)."""
