"""Why a message failed, as a ``Comity-Report`` header beside the report's object (GW-12, T8). Pure.

Place on the path: inside step 8, for ``mapping.py``, and at the far end of it, for ``client/sip.py``. A report over SIP is a
MESSAGE of its own: an IMDN says that it failed, but has no word for why (RFC 5438 section 7.2.1.1). Its Call-ID is that of
the failed MESSAGE.
"""

from __future__ import annotations

from comity.bindings.sip.headers import clean_text, find, parse_params, quoted, unquoted
from comity.bindings.sip.message import SipRequest, SipResponse
from comity.cpim.address import Address
from comity.cpim.delivered import OBJECT, READABLE, TEXT, checked
from comity.cpim.operations import Fate, Reason, Report
from comity.errors import AddressError, RemoteProtocolError

REPORT = "Comity-Report"
WANTS = "Comity-Wants"
"""``Comity-Wants: receipt``: the server that is asked to take the message over is to say when it was delivered."""
FORM = "Comity-Form"
TOLD = frozenset({OBJECT, TEXT, READABLE})
REPORTER = "comity"
"""Local part of the address by which a server of ours speaks; no account has it."""
ABOUT = ";tag="
"""Stands between the two halves of a peer's message's identifier."""
MAX_TEXT = 120
"""Characters of the sentence: the whole is to fit a datagram."""


def report_headers(report: Report) -> list[tuple[str, str]]:
    """``Comity-Report: reason;to="im:…";text="…"``; between servers also which message of the other's it is about."""
    text = quoted(clean_text(report.text)[:MAX_TEXT])
    value = f"{report.reason.value};to={quoted(report.recipient.uri)};text={text}"
    if report.fate is not Fate.FAILED:
        value += f";fate={report.fate.value}{_form_params(report.form, report.at)}"
    about = report.native_id.partition(ABOUT)[2]
    return [(REPORT, f"{value};about={quoted(clean_text(about))}" if about else value)]


def form_headers(form: str, at: str) -> list[tuple[str, str]]:
    """``Comity-Form: text-of-signed;at="gw.example"`` in a 200: in which form the recipient's device got the message."""
    return [(FORM, form + (f";at={quoted(at)}" if at else ""))] if form in TOLD else []


def parse_form(answer: SipResponse) -> tuple[str, str]:
    """(form, node) that an answer names, as far as they are known here."""
    form, _, rest = (answer.value(FORM.lower()) or "").partition(";")
    try:
        return checked(form.strip(), unquoted(find(parse_params(f";{rest}", FORM), "at") or "") if rest else "")
    except RemoteProtocolError:
        return "", ""


def _form_params(form: str, at: str) -> str:
    if form not in TOLD:
        return ""
    return f";form={form}" + (f";at={quoted(at)}" if at else "")


def peers_id(request: SipRequest) -> str:
    """The identifier of a message that a peer server handed in: its Call-ID, and the From tag by which that server knows it."""
    return f"{request.call_id}{ABOUT}{request.from_.tag}"


def parse_about(request: SipRequest) -> str:
    """The message of ours that a peer's report is about, "" if it names none."""
    value = request.value("comity-report") or ""
    try:
        return unquoted(find(parse_params(f";{value.partition(';')[2]}", REPORT), "about") or "")
    except RemoteProtocolError:
        return ""


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
        fate = Fate(find(params, "fate") or Fate.FAILED.value)
        form = checked(find(params, "form") or "", unquoted(find(params, "at") or ""))
        return Report(Reason(reason.strip()), text, recipient, request.call_id, fate, *form)
    except (RemoteProtocolError, AddressError, ValueError):
        return None
