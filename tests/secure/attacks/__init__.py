"""Published attacks on signed and encrypted mail, done to message/cpim objects with real keys (reliability.md section 2.7)."""
