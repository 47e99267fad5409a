#!/usr/bin/env python3
"""A SUBSCRIBE, NOTIFY or PUBLISH: its event headers are read or refused, and the NOTIFY written from it holds what was read.

What a watcher writes goes into every NOTIFY to it, so the one made here is read again: one header of each, the same dialog,
nothing that was not there.
"""

from __future__ import annotations

from collections.abc import Callable

from run import run

from comity.bindings.sip.dialog import Dialog
from comity.bindings.sip.mapping import Refusal
from comity.bindings.sip.message import SipRequest
from comity.bindings.sip.notifications import NO_CONTENT, Kept, head_of, notify_rest
from comity.bindings.sip.packages import accepted, duration_of, event_of, if_match_of, state_value
from comity.bindings.sip.publishing import read_statement
from comity.bindings.sip.subscriber_rules import SubscriptionStateValue
from comity.bindings.sip.subscriptions import request_to_subscription
from comity.bindings.sip.wire import parse_datagram
from comity.errors import LocalProtocolError, RemoteProtocolError


def one_input(data: bytes) -> None:
    request = parse_datagram(data)
    if not isinstance(request, SipRequest):
        return
    readers: tuple[Callable[[], object], ...] = (
        lambda: accepted(request, "presence"),
        lambda: accepted(request, "presence.winfo"),
        lambda: duration_of(request, 60),
        lambda: if_match_of(request),
        lambda: request_to_subscription(request),
        lambda: read_statement(request),
        lambda: SubscriptionStateValue.parse(request.value("subscription-state") or ""),
    )
    for read in readers:
        try:
            value = read()
        except RemoteProtocolError:
            continue
        assert not isinstance(value, Refusal) or 400 <= value.status_code < 500
    try:
        event = event_of(request)
        dialog = Dialog.of_request(request, "ours", 7)
    except RemoteProtocolError:
        return
    if event is not None:
        check_notify(Kept(dialog, str(event), "sip:b@127.0.0.1", "udp", ("127.0.0.1", 1), ("127.0.0.1", 2)))


def check_notify(kept: Kept) -> None:
    assert Kept.decode(kept.encode()) == kept
    try:
        head = head_of(kept, 70)
    except LocalProtocolError:
        return
    via = b"Via: SIP/2.0/UDP 127.0.0.1:2;branch=z9hG4bK1\r\n"
    rest = notify_rest(head, 8, state_value("active", 60), NO_CONTENT)
    notify = parse_datagram(head.start + via + rest)
    if not isinstance(notify, SipRequest):
        return  # longer than we would read ourselves
    dialog = kept.dialog
    assert (notify.call_id, notify.from_.tag, notify.to.tag) == dialog.id
    assert notify.uri_text == dialog.request_uri
    assert notify.value("event") == kept.event
    assert notify.listed("route") == dialog.routes_out
    assert notify.value("subscription-state") == "active;expires=60"
    names = [name for name, _ in notify.headers]
    assert sorted(set(names) - {"Route"}) == sorted(name for name in names if name != "Route")
    assert not notify.body


if __name__ == "__main__":
    run(one_input)
