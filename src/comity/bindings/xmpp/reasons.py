"""Failure reason to stanza error and back: the one table (T1, T3 and T8 of conformance.md).

Place on the path: beside ``mapping.py``, which alone uses it. Reasons stand here by their values
(``Reason.value``), so that the table can be read, and used by a client, without the middle.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Final

#: Reason → (condition, type if other than the condition's own, detail element of RFC 3923 or, for "protection", our own).
CONDITIONS: Final[dict[str, tuple[str, str, str]]] = {
    "syntax": ("bad-request", "", ""),
    "no-such-user": ("item-not-found", "", ""),
    "no-route": ("remote-server-not-found", "", ""),
    "timeout": ("remote-server-timeout", "", ""),
    "denied": ("forbidden", "", ""),
    "away": ("recipient-unavailable", "", ""),
    "size": ("policy-violation", "", ""),
    "content": ("not-acceptable", "", ""),
    "hops": ("not-acceptable", "", ""),
    "loop": ("not-acceptable", "", ""),
    "subscription-exists": ("conflict", "", ""),
    "internal": ("internal-server-error", "wait", ""),
    "overload": ("resource-constraint", "", ""),
    "quota": ("resource-constraint", "", ""),
    "expired": ("recipient-unavailable", "cancel", ""),
    "timestamp": ("not-acceptable", "", "bad-timestamp"),
    "signature": ("not-acceptable", "", "unverified-signature"),
    "decryption": ("bad-request", "", "decryption-failed"),
    "unserved": ("service-unavailable", "", ""),
    "no-publication": ("item-not-found", "", ""),
    "protection": ("policy-violation", "", "protection-unavailable"),
}

#: Condition → reason, by way of the SIP column of T3.
REASONS: Final[dict[str, str]] = {
    "bad-request": "syntax",
    "conflict": "syntax",
    "feature-not-implemented": "content",
    "forbidden": "denied",
    "gone": "no-such-user",
    "internal-server-error": "internal",
    "item-not-found": "no-such-user",
    "jid-malformed": "syntax",
    "not-acceptable": "content",
    "not-allowed": "denied",
    "not-authorized": "denied",
    "policy-violation": "denied",
    "recipient-unavailable": "away",
    "redirect": "no-such-user",
    "registration-required": "denied",
    "remote-server-not-found": "no-route",
    "remote-server-timeout": "timeout",
    "resource-constraint": "overload",
    "service-unavailable": "denied",
    "subscription-required": "denied",
    "undefined-condition": "syntax",
    "unexpected-request": "syntax",
}

#: Detail elements of RFC 3923 section 7, with the spelling of its schema too (X27).
_DETAILS: Final[dict[str, str]] = {
    "bad-timestamp": "timestamp",
    "unverified-signature": "signature",
    "signature-unverified": "signature",
    "decryption-failed": "decryption",
    "protection-unavailable": "protection",
}


def condition_for(reason: str, *, is_local: bool = False, exact: str = "") -> tuple[str, str, str]:
    """Condition, type ("" for the condition's own) and detail element ("" none) for a reason.

    ``exact``: the word of the side that refused (``Response.condition``), if it is one that a stanza may hold.

    ``is_local``: the recipient's domain is ours; an unknown user then looks like any other who takes no messages
    (RFC 6121 section 8.5.1; XMPP-8, X-57).
    """
    if is_local and reason == "no-such-user":
        return "service-unavailable", "", ""
    word = exact.partition(" ")[0]
    return (word, "", "") if word in REASONS else CONDITIONS[reason]


def reason_for_condition(condition: str, details: Set[str] = frozenset()) -> str:
    """The reason behind a device's stanza error; an unknown condition is undefined-condition (RFC 6120 8.3.2)."""
    for detail in details:
        if detail in _DETAILS:
            return _DETAILS[detail]
    return REASONS.get(condition, "syntax")
