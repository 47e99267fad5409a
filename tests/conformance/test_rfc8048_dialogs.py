"""The SIP half of RFC 8048's examples, as a gateway's subscriber sends and takes it (sections 5.2.1 to 5.2.3; GW-13, GW-14).

The files hold them as printed. Three things in them cannot be: requests without To (F2), and NOTIFY requests whose From and To
are the watcher's and the notifier's way round, without a Contact (F10, F25; RFC 6665 section 8.2.1 wants both).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from comity.bindings.sip.message import SipRequest, SipResponse
from comity.bindings.sip.subscriber import Ended, Notified, Send, State, Subscriber, Wish
from comity.bindings.sip.subscriber_rules import EndCause

FOLDER = Path(__file__).parent / "rfc8048"
SAID = ("event", "max-forwards", "accept", "expires")
"""Headers of F2 and F17 that are not names somebody made up."""


def example(name: str) -> tuple[str, list[tuple[str, str]], bytes]:
    """First line, headers and body as printed."""
    head, _, body = (FOLDER / f"{name}.dat").read_bytes().decode().partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    return first, [(line.partition(":")[0], line.partition(":")[2].strip()) for line in lines], body.encode()


def request(name: str, **changed: str) -> SipRequest:
    """An example with some headers of our dialog in it; underscores in the names stand for hyphens."""
    first, headers, body = example(name)
    method, uri, _ = first.split(" ")
    replaced = {key.replace("_", "-").lower(): value for key, value in changed.items()}
    kept = [(key, value) for key, value in headers if key.lower() not in replaced]
    return SipRequest(method, uri, [*kept, *replaced.items()], body)


def begun() -> tuple[Subscriber, Send]:
    """Juliet's gateway, as it asks for Romeo."""
    wish = Wish("sip:romeo@example.net", "sip:juliet@example.com", "<sip:juliet@example.com;gr=yn0cl4bnw0yr3vym>")
    subscriber = Subscriber(wish, random=bytes)
    subscriber.subscribe(0.0)
    sent = subscriber.next_event()
    assert isinstance(sent, Send)
    return subscriber, sent


def accepted() -> tuple[Subscriber, Send]:
    """The same after F4."""
    subscriber, sent = begun()
    first, headers, _ = example("5.2.1-f4")
    subscriber.take_answer(sent.id, SipResponse(int(first.split(" ")[1]), "OK", headers), 0.0)
    return subscriber, sent


def mended(name: str, sent: Send) -> SipRequest:
    """A NOTIFY of the examples in the dialog that was asked for, from Romeo to Juliet."""
    return request(
        name,
        From="<sip:romeo@example.net>;tag=ffd2",
        To=f"<sip:juliet@example.com>;tag={sent.request.from_.tag}",
        Call_ID=sent.request.call_id,
        Contact="<sip:romeo@simple.example.net;gr=dr4hcr0st3lup4c>",
    )


def test_f2_is_what_we_ask() -> None:
    _, sent = begun()
    printed = request("5.2.1-f2")
    assert (sent.request.method, sent.request.uri_text) == (printed.method, printed.uri_text)
    assert [sent.request.value(name) for name in SAID] == [printed.value(name) for name in SAID]
    assert str(sent.request.from_.uri) == str(printed.from_.uri)
    assert sent.request.cseq == printed.cseq


def test_after_f4_nothing_is_known_yet() -> None:
    """ "needs to consider the state to be "neutral" until it receives a NOTIFY"."""
    subscriber, _ = accepted()
    assert subscriber.state is State.NOTIFY_WAIT
    assert subscriber.next_event() is None


def test_f10_makes_it_active_for_as_long_as_it_says() -> None:
    subscriber, sent = accepted()
    assert subscriber.take_notify(mended("5.2.1-f10", sent), 1.0)[0] == 200
    notified = subscriber.next_event()
    assert isinstance(notified, Notified)
    assert b"dr4hcr0st3lup4c" in notified.request.body
    assert subscriber.next_timer() == 1 + 499 - 64, "refreshed sufficiently in advance (section 5.2.2)"


@pytest.mark.parametrize("name", ["5.2.1-f10", "5.2.3-f25"])
def test_as_printed_the_notifications_belong_to_no_dialog(name: str) -> None:
    subscriber, _ = accepted()
    assert subscriber.take_notify(request(name), 1.0)[0] == 481


def test_f17_is_how_we_end_it_and_f25_the_last_word() -> None:
    subscriber, sent = accepted()
    subscriber.take_notify(mended("5.2.1-f10", sent), 1.0)
    subscriber.next_event()
    subscriber.unsubscribe(2.0)
    goodbye = subscriber.next_event()
    assert isinstance(goodbye, Send)
    printed = request("5.2.3-f17")
    assert [goodbye.request.value(name) for name in SAID] == [printed.value(name) for name in SAID]
    assert goodbye.request.to.tag == printed.to.tag
    assert subscriber.take_notify(mended("5.2.3-f25", sent), 3.0)[0] == 200
    ended = subscriber.next_event()
    assert isinstance(ended, Ended)
    assert (ended.end.cause, ended.retry_at) == (EndCause.UNKNOWN, None)
    assert subscriber.is_done
