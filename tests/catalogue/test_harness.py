"""The harness itself: it speaks correctly where a row needs it to, and its checks can fail."""

from __future__ import annotations

import base64

import pytest

from tests.catalogue.harness import Inbox, Target
from tests.catalogue.raw import STAGES, RawSipTcp, RawSipUdp, RawXmpp, Stage, authorization, sip_status

REGISTER = (
    b"REGISTER sip:a.test SIP/2.0\r\nVia: SIP/2.0/%s 127.0.0.1;rport;branch=z9hG4bK%d\r\nFrom: <sip:alice@a.test>;tag=1\r\n"
    b"To: <sip:alice@a.test>\r\nCall-ID: harness\r\nCSeq: %d REGISTER\r\nMax-Forwards: 70\r\n"
    b"User-Agent: a telephone long enough for a challenge over UDP to fit in (S-28)\r\n%sContent-Length: 0\r\n\r\n"
)


@pytest.mark.parametrize("stage", STAGES)
def test_a_comment_in_a_stream_is_answered_at_every_stage(target: Target, stage: Stage) -> None:
    """X-09."""
    with target.row(f"X-09 {stage}"), RawXmpp(target, stage) as peer:
        peer.open()
        peer.send(b"<!-- c --><iq/>")
        assert b"restricted-xml" in peer.until_closed()


def test_a_legitimate_message_right_before_bad_input_arrives(target: Target, bob: Inbox) -> None:
    with target.row("harness", stores=True), RawXmpp(target, "bound") as peer:
        peer.send(b"<message to='bob@a.test' id='m1'><body>before the storm</body></message><a></b>")
        peer.until_closed()
        bob.expect("before the storm")
    assert bob.senders[-1] == "im:alice@a.test"


def test_a_sip_peer_signs_in_by_tcp_and_udp(target: Target) -> None:
    with target.row("harness"), RawSipTcp(target) as stream:
        stream.send(REGISTER % (b"TCP", 1, 1, b""))
        challenge = stream.until(rb"\r\n\r\n")
        assert sip_status(challenge) == 401
        stream.send(REGISTER % (b"TCP", 2, 2, authorization(challenge, "REGISTER", "sip:a.test")))
        assert sip_status(stream.until(rb"\r\n\r\n")) == 200
    with target.row("harness"), RawSipUdp(target) as peer:
        peer.send(REGISTER % (b"UDP", 3, 3, b""))
        assert sip_status(peer.receive()) == 401


def test_the_checks_fail_when_something_is_left(target: Target) -> None:
    before = target.snapshot()
    with RawXmpp(target, "bound") as peer:
        peer.send(b"<message to='bob@a.test' id='m2'><body>" + base64.b64encode(b"left") + b"</body></message>")
        peer.send(b"<iq type='get' id='p' to='a.test'><ping xmlns='urn:xmpp:ping'/></iq>")
        peer.until(rb"id=.p.")
    with pytest.raises(AssertionError, match="the store has changed"):
        target.check_after("harness", before)
