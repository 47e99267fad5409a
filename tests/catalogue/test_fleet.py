"""The fleet itself: a split is a split, and a stream that is not answered, or answered by bad XML, is seen."""

from __future__ import annotations

import os
import signal

import pytest

from tests.catalogue.fleet import octet_by_octet, pieces, play, read_answer, streams, unread
from tests.catalogue.harness import Target
from tests.catalogue.raw import HEADER, RawXmpp

ERROR = b"<stream:error><not-well-formed xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>"


def test_octets_the_server_has_not_read_are_counted(target: Target) -> None:
    with RawXmpp(target) as peer:
        peer.open()
        os.kill(target.pid, signal.SIGSTOP)
        try:
            peer.send(b"<iq ")
            assert unread([peer]) == 4
        finally:
            os.kill(target.pid, signal.SIGCONT)
        play([peer], [[b"id='1'"]])
        assert unread([peer]) == 0
        peer.send(b"></b>")
        peer.until_closed()


def test_many_streams_are_played_in_step(target: Target) -> None:
    bad = b"<a></b>"
    with streams(target, len(bad), "fresh") as peers:
        play(peers, [octet_by_octet(bad), *(pieces(bad, cut) for cut in range(1, len(bad)))])
        assert [read_answer(peer.until_closed()).condition for peer in peers] == ["not-well-formed"] * len(bad)


def test_an_answer_is_one_document_and_the_error_is_its_last_element() -> None:
    assert read_answer(ERROR + b"</stream:stream>").condition == "not-well-formed"
    assert read_answer(HEADER + b"<iq/>" + ERROR + b"</stream:stream>").condition == "not-well-formed"
    assert read_answer(b"</stream:stream>").condition == ""
    for wrong in (
        ERROR,
        ERROR + b"<iq/></stream:stream>",
        ERROR + ERROR + b"</stream:stream>",
        HEADER + HEADER + ERROR + b"</stream:stream>",
    ):
        with pytest.raises(AssertionError):
            _ = read_answer(wrong).condition
