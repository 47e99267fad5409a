"""Data on one session with another relay: order, window, answers, loss (reliability.md section 5.5)."""

from __future__ import annotations

from typing import cast

from comity.bindings.apex.elements import Data, Error, Inline, Ok, Originator, Recipient
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.neighbour import NOT_PROTECTED, Neighbour, Sending
from comity.bindings.base import Link, Peer, TlsInfo
from comity.errors import LocalProtocolError
from tests.net.kit import run_async


def data(number: int) -> Data:
    inside = Inline(f"<n>{number}</n>".encode())
    return Data(Originator(Endpoint.parse("a@a.test")), (Recipient(Endpoint.parse("b@b.test")),), inside)


class Wire:
    """Stands for link and session of a neighbour: what was sent, by channel."""

    def __init__(self, *, is_protected: bool = True) -> None:
        tls = TlsInfo("TLSv1.3", "x", b"") if is_protected else None
        self.peer = Peer("tls" if tls else "tcp", ("127.0.0.1", 1), ("127.0.0.1", 2), tls)
        self.sent: list[tuple[int, Data]] = []
        self.flushed = 0
        self.unwritable: Data | None = None

    def send(self, channel: int, element: Data) -> int:
        if element == self.unwritable:
            raise LocalProtocolError("it holds what XML cannot")
        self.sent.append((channel, element))
        return len(self.sent)

    def flush(self) -> None:
        self.flushed += 1


def neighbour(wire: Wire, window: int = 2) -> Neighbour:
    return Neighbour(cast("Link", wire), wire, 3, window, frozenset({"b.test"}))


@run_async
async def test_data_goes_out_in_order_and_no_more_than_the_window_is_unanswered() -> None:
    wire = Wire()
    other = neighbour(wire)
    sendings = [Sending.of(data(number)) for number in range(4)]
    for sending in sendings:
        other.send(sending, 1.0)
    assert [each for _, each in wire.sent] == [data(0), data(1)]
    assert (other.backlog, other.waiting_since, wire.flushed) == (2, 1.0, 2)
    assert other.answered(1, Ok(), 5.0)
    assert other.answered(2, Error(450), 6.0)
    assert wire.sent == [(3, data(number)) for number in range(4)]
    assert (sendings[0].answer.result(), sendings[1].answer.result()) == (Ok(), Error(450))
    assert (other.waiting_since, other.used) == (5.0, 6.0)
    assert not other.answered(1, Ok(), 7.0), "it was answered already"


@run_async
async def test_who_waits_is_told_when_the_session_is_lost() -> None:
    other = neighbour(Wire(), 1)
    sendings = [Sending.of(data(number)) for number in range(3)]
    for sending in sendings:
        other.send(sending, 0.0)
    assert other.is_busy
    other.lost()
    assert [sending.answer.result() for sending in sendings] == [None, None, None]
    assert not other.is_busy


@run_async
async def test_what_was_taken_back_before_its_turn_is_not_sent() -> None:
    """G9: a watcher who may not know any more is not told."""
    wire = Wire()
    other = neighbour(wire, 1)
    sendings = [Sending.of(data(number)) for number in range(3)]
    for sending in sendings:
        other.send(sending, 0.0)
    sendings[1].answer.cancel()
    other.answered(1, Ok(), 0.0)
    assert [each for _, each in wire.sent] == [data(0), data(2)]


@run_async
async def test_what_needs_tls_does_not_go_without() -> None:
    """T11, SEC-29: the last look before the octets leave."""
    wire = Wire(is_protected=False)
    other = neighbour(wire)
    bound, free = Sending.of(data(0), needs_tls=True), Sending.of(data(1))
    other.send(bound, 0.0)
    other.send(free, 0.0)
    assert bound.answer.result() is NOT_PROTECTED
    assert [each for _, each in wire.sent] == [data(1)]


@run_async
async def test_what_cannot_be_written_fails_alone() -> None:
    """F-POISON: the session refuses to write it, and what stands behind it goes."""
    wire = Wire()
    other = neighbour(wire)
    wire.unwritable = data(0)
    sendings = [Sending.of(data(number)) for number in range(2)]
    for sending in sendings:
        other.send(sending, 0.0)
    answer = sendings[0].answer.result()
    assert isinstance(answer, Error)
    assert answer.code == 504
    assert [each for _, each in wire.sent] == [data(1)]
