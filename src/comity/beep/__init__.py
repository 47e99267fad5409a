"""BEEP, the Blocks Extensible Exchange Protocol (RFC 3080, 3081), without sockets and clocks."""
