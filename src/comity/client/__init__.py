"""Clients for SIP and XMPP on the same sans-IO sessions as the server."""
