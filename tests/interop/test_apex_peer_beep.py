"""Our BEEP library and the independent peer at two ends of a connection, each once in every role (APEX-1 to APEX-6).

The peer is strict: an octet beyond its window, a sequence number off by one, an answer out of turn end the session there.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from comity.beep import (
    BeepOptions,
    BeepSession,
    ChannelClosed,
    ChannelStarted,
    ChannelWanted,
    CloseWanted,
    Event,
    GreetingReceived,
    MessageReceived,
    ProfileOffer,
    ReplyReceived,
    SessionEnded,
)
from tests.catalogue.beep import POORLY_FORMED, Place
from tests.interop.apex_peer_beep import BEEP_XML, Broken, Refused, Session

ECHO = "http://example.org/echo"
MANY = bytes(range(256)) * 300
START = BEEP_XML + f"<start number='1'><profile uri='{ECHO}' /></start>".encode()


class Ours(threading.Thread):
    """Our library on a socket: as listener an echo; as initiator somebody who has `asks` echoed, and then takes his leave."""

    def __init__(self, sock: socket.socket, role: str, asks: list[bytes]) -> None:
        super().__init__(daemon=True)
        self.sock = sock
        options = BeepOptions(profiles=(ECHO,) if role == "listener" else ())
        self.session = BeepSession(role, options, time.monotonic())  # type: ignore[arg-type]  # one of the two
        self.asks = asks
        self.events: list[Event] = []
        self.echoed: list[bytes] = []

    def run(self) -> None:
        self._turn()
        while not self.session.is_ended:
            try:
                octets = self.sock.recv(1000)
            except OSError:
                return
            if not octets:
                self.session.receive_eof(time.monotonic())
            self.session.receive_data(octets, time.monotonic())
            self._turn()

    def _turn(self) -> None:
        self._take_events()
        for octets in self.session.data_to_send(time.monotonic()):
            if octets:
                self.sock.sendall(octets)
        self._take_events()  # that the last octet is out may be the end
        if self.session.is_ended:
            self.sock.close()

    def _take_events(self) -> None:
        while (event := self.session.next_event()) is not None:
            self.events.append(event)
            self._handle(event)

    def _handle(self, event: Event) -> None:
        session = self.session
        match event:
            case ChannelWanted(number=number, profiles=offers):
                if ECHO in [offer.uri for offer in offers]:
                    session.accept_channel(number, ECHO, offers[0].content)
                else:
                    session.refuse_channel(number, 550, "all requested profiles are unsupported")
            case MessageReceived(channel=channel, msgno=msgno, payload=payload):
                self._echo(channel, msgno, payload)
            case CloseWanted(channel=channel):
                session.accept_close(channel)
            case GreetingReceived() if session.role == "initiator":
                session.start_channel([ProfileOffer(ECHO, b"hello & <goodbye>")])
            case ChannelStarted(number=number):
                for payload in self.asks:
                    session.send_message(number, payload)
                session.close_channel(number)
            case ReplyReceived(payload=payload):
                self.echoed.append(payload)
            case ChannelClosed(channel=channel) if session.role == "initiator" and channel:
                session.close_channel(0)

    def _echo(self, channel: int, msgno: int, payload: bytes) -> None:
        if payload.startswith(b"\r\nno"):
            self.session.reply_error(channel, msgno, payload)
        elif payload.startswith(b"\r\nmany"):
            for count in range(3):
                self.session.answer(channel, msgno, payload + str(count).encode())
            self.session.end_answers(channel, msgno)
        else:
            self.session.reply(channel, msgno, payload)


@contextmanager
def facing(role: str, asks: list[bytes] | None = None, window: int = 65536) -> Iterator[tuple[Session, Ours]]:
    """The peer, and our library in `role` at the other end of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    other.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    ours = Ours(other, role, asks or [])
    peer = Session(one, listening=role == "initiator", profiles=(ECHO,) if role == "initiator" else (), window=window)
    ours.start()
    try:
        yield peer, ours
    finally:
        peer.hang_up()
        ours.join(10)
        other.close()
        assert not ours.is_alive()


def test_our_listener_echoes_everything_in_order() -> None:
    """Ten messages ahead of their replies, one of them larger than any window, on three channels."""
    with facing("listener") as (peer, ours):
        assert peer.greet() == [ECHO]
        numbers = [peer.start([(ECHO, content)])[0] for content in ("", "a &amp; b", "x" * 4000)]
        assert numbers == [1, 3, 5]
        asked = [(n, k, peer.send(n, b"\r\n%d " % k + MANY[: k * 7919])) for k in range(10) for n in numbers]
        for number, k, msgno in asked:
            (answer,) = peer.answered(number, msgno)
            assert (answer.keyword, answer.payload) == ("RPY", b"\r\n%d " % k + MANY[: k * 7919])
        peer.close_channel(3)
        peer.close_channel()
        ours.join(10)
        last = ours.events[-1]
        assert isinstance(last, SessionEnded)
        assert not last.is_error


def test_what_rides_on_start_comes_back() -> None:
    """RFC 3080, section 2.3.1.2: 4,096 octets of initialization at most."""
    with facing("listener") as (peer, _):
        peer.greet()
        content = "<attach endpoint='fred@example.com' transID='1' />"
        assert peer.start([(ECHO, content)]) == (1, ECHO, content)
        with pytest.raises(Refused):
            peer.start([(ECHO, "y" * 4097)])


def test_negative_and_many_answers() -> None:
    """ERR, and ANS … NUL, in their turn between positive ones."""
    with facing("listener") as (peer, _):
        peer.greet()
        number, _, _ = peer.start([(ECHO, "")])
        asked = [peer.send(number, b"\r\n" + word) for word in (b"yes", b"no", b"many", b"yes")]
        got = [[(one.keyword, one.payload) for one in peer.answered(number, msgno)] for msgno in asked]
        assert got[1] == [("ERR", b"\r\nno")]
        assert sorted(got[2][:3]) == [("ANS", b"\r\nmany%d" % count) for count in range(3)]
        assert got[2][3:] == [("NUL", b"")]
        assert got[0] == got[3] == [("RPY", b"\r\nyes")]


def test_messages_come_in_frames_of_one_octet() -> None:
    """Every cut of a message into frames is the same message."""
    with facing("listener") as (peer, _):
        peer.greet()
        number, _, _ = peer.start([(ECHO, "")])
        for size in (1, 2, 3, 50):
            (answer,) = peer.answered(number, peer.send(number, b"\r\n" + MANY[:300], frame=size))
            assert answer.payload == b"\r\n" + MANY[:300]


def test_unknown_profiles_parity_and_channels_are_refused() -> None:
    """550 for the profile, 501 for an even number from the initiator (APEX-4), 550 for closing what is not open."""
    with facing("listener") as (peer, _):
        peer.greet()
        with pytest.raises(Refused, match="550"):
            peer.start([("http://example.org/other", "")])
        with pytest.raises(Refused, match="501"):
            peer.ask(0, START.replace(b"'1'", b"'2'"))
        with pytest.raises(Refused, match="550"):
            peer.close_channel(7)


@pytest.mark.parametrize("window", [4096, 5000, 65536])
def test_our_initiator_keeps_within_every_window(window: int) -> None:
    """The peer ends the session at the first octet too many; what is sent comes whole and in order, then an orderly release."""
    asks = [b"\r\n%d " % k + MANY[: k * 6007] for k in range(12)]
    with facing("initiator", asks, window) as (peer, ours):
        peer.on_start = lambda number, offers: offers[0]
        peer.greet()
        for _ in asks:
            request = peer.next_request()
            peer.reply(request, request.payload)
        peer.pump(lambda: peer.is_over)
        ours.join(10)
        assert ours.echoed == asks
        started = next(event for event in ours.events if isinstance(event, ChannelStarted))
        assert started.content.strip() == b"hello & <goodbye>"
        last = ours.events[-1]
        assert isinstance(last, SessionEnded)
        assert not last.is_error


def test_a_channel_whose_window_stays_closed_holds_up_no_other() -> None:
    """APEX-6: the peer stops reading one channel; the other goes on."""
    with facing("listener") as (peer, _):
        peer.greet()
        one, two = (peer.start([(ECHO, "")])[0] for _ in range(2))
        peer.opens_windows = False
        stuck = peer.send(one, b"\r\n" + MANY[:60_000])
        for k in range(20):
            (answer,) = peer.answered(two, peer.send(two, b"\r\n%d" % k))
            assert answer.payload == b"\r\n%d" % k
        with pytest.raises(TimeoutError):
            peer.pump(lambda: (one, stuck) in peer.answers, 0.2)
        peer.opens_windows = True
        peer.widen(one, 65536)
        (answer,) = peer.answered(one, stuck)
        assert answer.payload == b"\r\n" + MANY[:60_000]


@pytest.mark.parametrize("name", [name for name, _ in POORLY_FORMED])
def test_a_poorly_formed_frame_ends_it_without_a_word(name: str) -> None:
    """P-01 … P-14 on the library alone, cut at every octet."""
    make = dict(POORLY_FORMED)[name]
    length = 1
    for cut in range(40):
        if cut >= length:
            break
        with facing("listener") as (peer, ours):
            peer.greet()
            octets = make(Place(0, 1, peer.channels[0].sent, START.replace(b"'1'", b"'7'")))
            length = len(octets)
            peer.sock.sendall(octets[:cut])
            peer.sock.sendall(octets[cut:])
            with pytest.raises(Broken, match=r"closed|read"):
                peer.pump(lambda: False)
            last = ours.events[-1]
            assert isinstance(last, SessionEnded), name
            assert last.is_error
