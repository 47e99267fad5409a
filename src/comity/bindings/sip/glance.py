"""The cheap yes: a datagram that says 200 to a request of ours, known at a glance (RFC 3261 section 17.1.3).

Place on the path: instead of step 2, for ``session.py``. A thousand watchers answer each change of one presentity with a 200 that
says nothing else. Whose it is stands in the one Via of ours, which is matched as in ``transaction.py``: branch, sent-by, method and
source. What is not written as nearly everybody writes it is read in the ordinary way.
"""

from __future__ import annotations

import re
from collections.abc import Callable

#: Methods whose 200 says nothing but that.
METHODS = frozenset({"NOTIFY"})
_START = b"SIP/2.0 200 "
_END = b"\r\n\r\n"

Glance = Callable[[bytes], str]
"""The branch of the request that a datagram says 200 to; "" if it has to be read."""


def glance_for(via: bytes) -> Glance:
    """Make the reader of a socket whose requests have a Via that begins with ``via``."""
    ours = re.compile(rb"\r\nVia: " + re.escape(via) + rb";branch=(z9hG4bK[0-9a-f]{24})[;\r]")
    method = re.compile(rb"\r\nCSeq: [0-9]{1,10} (?:" + "|".join(sorted(METHODS)).encode("ascii") + rb")\r\n")

    def glance(data: bytes) -> str:
        if not data.startswith(_START) or not data.endswith(_END):
            return ""
        found = ours.search(data)
        if found is None or data.count(b"\r\nV") + data.count(b"\r\nv") != 1 or method.search(data) is None:
            return ""
        return found[1].decode("ascii")

    return glance
