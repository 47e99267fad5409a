"""Why a message failed, as a ``Comity-Report`` header beside the report's object (GW-12, T8). Pure.

Place on the path: inside step 8, for ``mapping.py``, and at the far end of it, for ``client/sip.py``. A report over SIP is a
MESSAGE of its own: an IMDN says that it failed, but has no word for why (RFC 5438 section 7.2.1.1). Its Call-ID is that of
the failed MESSAGE.
"""

from __future__ import annotations

from comity.bindings.sip.headers import clean_text, find, parse_params, quoted, unquoted
from comity.bindings.sip.message import SipRequest
from comity.cpim.address import Address
from comity.cpim.operations import Reason, Report
from comity.errors import AddressError, RemoteProtocolError

REPORT = "Comity-Report"
REPORTER = "comity"
"""Local part of the address by which a server of ours speaks; no account has it."""
MAX_TEXT = 120
"""Characters of the sentence: the whole is to fit a datagram."""


def report_headers(report: Report) -> list[tuple[str, str]]:
    """``Comity-Report: reason;to="im:…";text="…"``."""
    text = quoted(clean_text(report.text)[:MAX_TEXT])
    return [(REPORT, f"{report.reason.value};to={quoted(report.recipient.uri)};text={text}")]


def parse_report(request: SipRequest) -> Report | None:
    """The report a MESSAGE is, None if it is none or cannot be read. To be believed of one's own server only."""
    value = request.value("comity-report")
    if value is None:
        return None
    reason, _, rest = value.partition(";")
    try:
        params = parse_params(f";{rest}", REPORT)
        recipient = Address.parse(unquoted(find(params, "to") or ""))
        text = clean_text(unquoted(find(params, "text") or ""))[:MAX_TEXT]
        return Report(Reason(reason.strip()), text, recipient, request.call_id)
    except (RemoteProtocolError, AddressError, ValueError):
        return None
