"""``comity demo``: the promise shown with real processes on real sockets of this machine, nothing faked."""
