"""BEEP, the Blocks Extensible Exchange Protocol (RFC 3080) over TCP (RFC 3081): a sans-IO library, usable alone."""
