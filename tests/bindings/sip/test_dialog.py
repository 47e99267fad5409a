"""Dialogs of subscriptions: who they are with, where requests go, in which order (RFC 3261 section 12, RFC 6665 section 4.4)."""

from __future__ import annotations

import pytest

from comity.bindings.sip.dialog import Dialog, dialog_id, routes_of
from comity.bindings.sip.message import SipRequest
from comity.errors import RemoteProtocolError


def subscribe(*extra: tuple[str, str], cseq: int = 7, contact: str = "<sip:alice@192.0.2.1:5062>") -> SipRequest:
    headers = [
        ("Via", "SIP/2.0/UDP 192.0.2.1:5062;branch=z9hG4bK1"),
        ("From", "<sip:alice@a.test>;tag=aa"),
        ("To", "<sip:bob@a.test>"),
        ("Call-ID", "c1@192.0.2.1"),
        ("CSeq", f"{cseq} SUBSCRIBE"),
        *([("Contact", contact)] if contact else []),
        *extra,
    ]
    return SipRequest("SUBSCRIBE", "sip:bob@a.test", headers)


def test_the_first_request_makes_the_dialog_of_its_receiver() -> None:
    """RFC 3261 section 12.1.1: route set in order, target from Contact."""
    request = subscribe(("Record-Route", "<sip:p1.test;lr>, <sip:p2.test;lr>"))
    dialog = Dialog.of_request(request, "bb", 100)
    assert dialog.id == ("c1@192.0.2.1", "bb", "aa")
    assert dialog_id(request) == ("c1@192.0.2.1", "", "aa")
    assert dialog.request_uri == "sip:alice@192.0.2.1:5062"
    headers = dialog.next_headers("NOTIFY")
    assert headers[:2] == [("Route", "<sip:p1.test;lr>"), ("Route", "<sip:p2.test;lr>")]
    assert dict(headers)["From"] == "<sip:bob@a.test>;tag=bb"
    assert dict(headers)["To"] == "<sip:alice@a.test>;tag=aa"
    assert dict(headers)["CSeq"] == "101 NOTIFY"
    assert dict(dialog.next_headers("NOTIFY"))["CSeq"] == "102 NOTIFY"


def test_a_strict_router_gets_its_own_uri() -> None:
    """RFC 3261 section 12.2.1.1."""
    dialog = Dialog.of_request(subscribe(("Record-Route", "<sip:old.test>, <sip:p2.test;lr>")), "bb")
    assert dialog.request_uri == "sip:old.test"
    assert dialog.routes_out == ["<sip:p2.test;lr>", "<sip:alice@192.0.2.1:5062>"]


def test_what_is_out_of_order_is_refused_and_changes_nothing() -> None:
    """RFC 3261 section 12.2.2: 500; a request in order moves the target."""
    dialog = Dialog.of_request(subscribe(), "bb")
    assert dialog.take(subscribe(cseq=6, contact="<sip:alice@192.0.2.9>")) == 500
    assert dialog.take(subscribe(cseq=7)) == 0
    assert dialog.target == "sip:alice@192.0.2.1:5062"
    assert dialog.take(subscribe(cseq=9, contact="<sip:alice@192.0.2.9>")) == 0
    assert dialog.target == "sip:alice@192.0.2.9"
    with pytest.raises(RemoteProtocolError):
        dialog.take(subscribe(cseq=10, contact="<tel:+123>"))
    assert (dialog.remote_cseq, dialog.target) == (9, "sip:alice@192.0.2.9")


@pytest.mark.parametrize(
    "contact",
    [
        "",
        "<tel:+123>",
        "<sip:a@h?Route=x>",
        "<sip:a@h>, <sip:b@h>",
        "*",
        f"<sip:{'a' * 300}@h>",
        "<sip:a@h",
        "<http://x/>",
    ],
)
def test_exactly_one_contact_that_can_be_asked(contact: str) -> None:
    """RFC 6665 section 8.2.1; a stored ?Route= would be written into every request (RFC 4475 section 3.3.15)."""
    with pytest.raises(RemoteProtocolError):
        Dialog.of_request(subscribe(contact=contact), "bb")


def test_route_sets_are_bounded() -> None:
    with pytest.raises(RemoteProtocolError):
        routes_of(subscribe(("Record-Route", ", ".join(["<sip:p.test;lr>"] * 9))))
    with pytest.raises(RemoteProtocolError):
        routes_of(subscribe(("Record-Route", f"<sip:{'p' * 1100}.test;lr>")))
    with pytest.raises(RemoteProtocolError):
        routes_of(subscribe(("Record-Route", "<mailto:x@y>")))


def test_a_route_set_from_an_answer_is_turned_round() -> None:
    """RFC 3261 section 12.1.2."""
    answered = subscribe(("Record-Route", "<sip:p1.test;lr>"), ("Record-Route", "<sip:p2.test;lr>"))
    assert routes_of(answered, is_reversed=True) == ("<sip:p2.test;lr>", "<sip:p1.test;lr>")


def test_a_dialog_is_kept_and_read_back() -> None:
    dialog = Dialog.of_request(subscribe(("Record-Route", "<sip:p1.test;lr>")), "bb", 5)
    assert Dialog.decode(dialog.encode()) == dialog
