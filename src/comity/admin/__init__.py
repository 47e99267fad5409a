"""Administrative acts, one typed function each."""
