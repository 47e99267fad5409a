"""XCAP: presence rules and contact lists as XML documents over HTTPS, as stock SIP clients keep them (RFC 4825)."""
