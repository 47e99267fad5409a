"""SIP's status codes and the finer words for a failure: T3 of conformance.md, both columns (RFC 7247 sections 7.1 and 7.2). Pure.

Place on the path: inside steps 4 and 8, for ``mapping.py``. ``Reason`` is what the middle decides by; a ``Response.condition`` is
the exact word of the side that refused, kept so that a text between two plain programs fails as if nothing stood between.
"""

from __future__ import annotations

from typing import Final

#: Word to code where it is about one device, and where it is about the person (RFC 7247 section 7.1, notes 1, 2 and 5).
#: Deviations: no 401 and 407, which would ask the sender's phone for a password that is not wrong, and no 301 and 302, which need
#: an address to go to.
CODES: Final[dict[str, tuple[int, int]]] = {
    "bad-request": (400, 400),
    "conflict": (400, 400),
    "feature-not-implemented": (405, 501),
    "forbidden": (403, 603),
    "gone": (410, 410),
    "internal-server-error": (500, 500),
    "item-not-found": (404, 604),
    "jid-malformed": (400, 400),
    "not-acceptable": (406, 606),
    "not-allowed": (403, 403),
    "not-authorized": (403, 403),
    "policy-violation": (403, 403),
    "recipient-unavailable": (480, 600),
    "redirect": (404, 404),
    "registration-required": (403, 403),
    "remote-server-not-found": (404, 404),
    "remote-server-timeout": (408, 408),
    "resource-constraint": (500, 500),
    "service-unavailable": (405, 403),
    "subscription-required": (400, 400),
    "undefined-condition": (400, 400),
    "unexpected-request": (491, 491),
}
FROM_SIP: Final = " sip"
"""Ends a word made of a SIP answer: another SIP side is told by the reason, which keeps more of it."""
OF_PERSON: Final = " bare"
"""Ends a word that is about the person, not about one device of hers (RFC 7247: a bare JID)."""

#: Code to word (RFC 7247 section 7.2).
WORDS: Final[dict[int, str]] = {
    **dict.fromkeys((300, 302, 305), "redirect"),
    **dict.fromkeys((301, 410), "gone"),
    **dict.fromkeys((380, 406, 415, 416, 421, 482, 483, 488, 505, 606), "not-acceptable"),
    **dict.fromkeys((400, 402, 493), "bad-request"),
    401: "not-authorized",
    403: "forbidden",
    **dict.fromkeys((404, 481, 484, 485, 604), "item-not-found"),
    **dict.fromkeys((405, 420, 439, 501), "feature-not-implemented"),
    407: "registration-required",
    **dict.fromkeys((408, 504), "remote-server-timeout"),
    **dict.fromkeys((413, 414, 440, 489, 513), "policy-violation"),
    423: "resource-constraint",
    **dict.fromkeys((430, 480, 486, 487, 600, 603), "recipient-unavailable"),
    491: "unexpected-request",
    **dict.fromkeys((500, 503), "internal-server-error"),
    502: "remote-server-not-found",
}
_BY_CLASS: Final = {3: "redirect", 4: "bad-request", 5: "internal-server-error", 6: "recipient-unavailable"}


def word_of(status_code: int) -> str:
    """The word for a final answer that is not 2xx."""
    return (WORDS.get(status_code) or _BY_CLASS[min(max(status_code // 100, 3), 6)]) + FROM_SIP


def code_of(condition: str) -> int | None:
    """The code for a word; None if there is none, or it is not known."""
    codes = CODES.get(condition.removesuffix(OF_PERSON))
    return None if codes is None else codes[condition.endswith(OF_PERSON)]
