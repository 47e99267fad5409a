#!/usr/bin/env python3
"""A subscriber and a publisher against any answers and NOTIFY requests: no other exception, and always a timer or an end."""

from __future__ import annotations

from run import run

from comity.bindings.sip.publisher import Publisher
from comity.bindings.sip.subscriber import Send, Subscriber, Wish
from comity.bindings.sip.wire import SipRequest, SipResponse, parse_datagram

NOTIFY = (
    b"NOTIFY sip:alice@h SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\nFrom: <sip:bob@b.test>;tag=n\r\n"
    b"To: <sip:alice@a.test>;tag="
    + b"00" * 8
    + b"\r\nCall-ID: "
    + b"00" * 16
    + b"\r\nCSeq: 7 NOTIFY\r\nMax-Forwards: 70\r\n"
)
ANSWER = (
    b"Via: SIP/2.0/TCP h;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:b@h>;tag=2\r\nCall-ID: 1\r\nCSeq: 1 X\r\n"
)
MOST = 40


def one_input(data: bytes) -> None:
    subscriber = Subscriber(Wish("sip:bob@b.test", "sip:alice@a.test", "<sip:alice@h>"), random=bytes)
    publisher = Publisher("sip:bob@b.test", random=bytes)
    subscriber.subscribe(0.0)
    publisher.publish("application/pidf+xml", b"x", 0.0)
    now = 0.0
    for part in data.split(b"\n\n")[:MOST]:
        ids = [event.id for event in iter(subscriber.next_event, None) if isinstance(event, Send)]
        tags = [event.id for event in iter(publisher.next_event, None) if isinstance(event, Send)]
        unit = parse_datagram(_framed(part))
        if isinstance(unit, SipRequest):
            code, _ = subscriber.take_notify(unit, now)
            assert code == 200 or 400 <= code < 600
        elif isinstance(unit, SipResponse) and unit.status_code >= 200:
            for id in ids:
                subscriber.take_answer(id, unit, now, has_credentials=len(part) % 2 == 0)
            for id in tags:
                publisher.take_answer(id, unit, now)
        else:
            timers = [timer for timer in (subscriber.next_timer(), publisher.next_timer()) if timer is not None]
            now = max(now, min(timers, default=now))
            subscriber.handle_timer(now)
            publisher.handle_timer(now)
        assert (subscriber.next_timer() is None) == subscriber.is_done


def _framed(part: bytes) -> bytes:
    """Lines of a NOTIFY, or of an answer that begins with its code, each with what a whole message needs."""
    headers, _, body = part.partition(b"\r\n\r\n")
    length = b"\r\nContent-Length: %d\r\n\r\n" % len(body)
    if headers[:3].isdigit():
        return b"SIP/2.0 " + headers[:3] + b" X\r\n" + ANSWER + headers[3:].lstrip(b"\r\n") + length + body
    return NOTIFY + headers + length + body if headers[:1] != b"!" else b""


if __name__ == "__main__":
    run(one_input)
