"""APEX, the Application Exchange (RFC 3340 to 3343), over BEEP."""
