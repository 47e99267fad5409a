"""What another side gave as its reason, before anybody of ours is shown it (G-14, T27). Pure.

Place on the path: every ``mapping.py``, where an answer becomes a response; words go on into reports, logs and other protocols.
"""

from __future__ import annotations

import re
from typing import Final

MOST_OCTETS: Final = 256
"""Of a sentence in UTF-8."""
_NOT_SHOWN = re.compile(
    "[\x00-\x20\x7f-\xa0\xad\u0600-\u0605\u061c\u2000-\u200f\u2028-\u202f\u205f-\u206f\ufeff\ufff9-\uffff\ud800-\udfff]+"
)


def said(text: str) -> str:
    """One line of it: what controls a terminal, a line or the direction of writing is a space, the rest cut to ``MOST_OCTETS``."""
    line = _NOT_SHOWN.sub(" ", text[: 4 * MOST_OCTETS]).strip(" ")
    return line.encode("utf-8")[:MOST_OCTETS].decode("utf-8", "ignore").rstrip(" ")
