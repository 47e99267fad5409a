"""Failure reason to APEX reply code and back: the one table (T1, T7 and T8 of conformance.md).

Place on the path: beside ``mapping.py`` and ``report.py``. Codes are those of RFC 3340 section 10, and four that RFC 3341 to 3343
use without listing them there (X37).
"""

from __future__ import annotations

from typing import Final

from comity.cpim.operations import Reason, Response, failure
from comity.cpim.said import said

CODES: Final[dict[Reason, int]] = {
    Reason.SYNTAX: 501,
    Reason.NO_SUCH_USER: 550,
    Reason.NO_ROUTE: 553,
    Reason.TIMEOUT: 450,
    Reason.DENIED: 537,
    Reason.AWAY: 450,
    Reason.SIZE: 554,
    Reason.CONTENT: 504,
    Reason.HOPS: 550,
    Reason.LOOP: 550,
    Reason.SUBSCRIPTION_EXISTS: 555,
    Reason.INTERNAL: 451,
    Reason.OVERLOAD: 421,
    Reason.QUOTA: 450,
    Reason.EXPIRED: 550,
    Reason.TIMESTAMP: 554,
    Reason.SIGNATURE: 554,
    Reason.DECRYPTION: 554,
    Reason.NO_PUBLICATION: 550,
    Reason.UNSERVED: 421,
    Reason.PROTECTION: 554,
}

#: What a peer's reply code means, by way of the SIP column of T7.
REASONS: Final[dict[int, Reason]] = {
    350: Reason.TIMEOUT,
    421: Reason.AWAY,
    450: Reason.AWAY,
    451: Reason.INTERNAL,
    454: Reason.DENIED,
    500: Reason.SYNTAX,
    501: Reason.SYNTAX,
    503: Reason.SYNTAX,
    504: Reason.CONTENT,
    530: Reason.DENIED,
    534: Reason.DENIED,
    535: Reason.DENIED,
    537: Reason.DENIED,
    538: Reason.DENIED,
    550: Reason.NO_SUCH_USER,
    551: Reason.NO_SUCH_USER,
    553: Reason.NO_ROUTE,
    554: Reason.DENIED,
    555: Reason.NO_PUBLICATION,
    556: Reason.AWAY,
}
_BY_FIRST_DIGIT: Final[dict[int, Reason]] = {3: Reason.TIMEOUT, 4: Reason.AWAY}


def reason_for_code(code: int) -> Reason:
    """The reason behind a reply code; of one that is not known the first digit decides (X37)."""
    return REASONS.get(code) or _BY_FIRST_DIGIT.get(code // 100, Reason.DENIED)


def refusal_code(response: Response) -> int:
    """The code of the ``error`` that refuses data: "not now" is 450 or 451 (RFC 3340 section 4.4.4; P-34, F-04)."""
    code = CODES[response.reason or Reason.INTERNAL]
    return 450 if code == 421 and response.is_temporary else code


def error_to_response(trans_id: str, code: int, text: str) -> Response:
    """What an application's or a relay's ``error`` about a delivery means."""
    return failure(trans_id, reason_for_code(code), said(text))
