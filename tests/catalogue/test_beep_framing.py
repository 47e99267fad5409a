"""P-01 … P-20 (reliability.md section 2.11): BEEP octets that break a rule, thrown at a running server.

C° is what RFC 3080, section 2.2.1.1 asks for: the session ends without a response. Each row goes to channel 0 of a session
that has only greeted, whole, octet by octet and cut at every offset, and to the APEX channel of one that is attached.
"""

from __future__ import annotations

import os
import re
import select
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.catalogue.beep import POORLY_FORMED, START, Place, raw, text_part, text_payload
from tests.catalogue.carriers import NO_RATES
from tests.catalogue.fleet import IN_FLIGHT, MAX_PIECES, cpu_of, octet_by_octet, pieces, play
from tests.catalogue.harness import PASSWORD, Inbox, Target
from tests.catalogue.raw import RawStream
from tests.interop.apex_peer import APEX
from tests.interop.apex_peer_beep import BEEP_XML, TLS, Broken, Refused

REPEATS = int(os.environ.get("COMITY_CATALOGUE_REPEATS", "40"))
"""How often each input is repeated before memory is measured; the text asks for 1,000."""
MIB = 1 << 20
CHANNELS = 32
"""Channels of one session (limits)."""
SEQ = re.compile(rb"SEQ \d+ \d+ \d+\r\n")
IDS = [row for row, _ in POORLY_FORMED]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server with rates for a catalogue sent in a minute."""
    target = Target(tmp_path_factory.mktemp("beep"), NO_RATES, people=("carol",))
    yield target
    target.check_canary()
    target.close()


def word(octets: bytes) -> bytes:
    """What was said but for the windows, which are no response."""
    return SEQ.sub(b"", octets)


def _code(problem: BaseException) -> str:
    """The code of a negative reply."""
    assert isinstance(problem, Refused)
    return problem.code


@pytest.mark.parametrize(("row", "make"), POORLY_FORMED, ids=IDS)
def test_a_poorly_formed_frame_ends_the_session_without_a_word(
    target: Target, row: str, make: Callable[[Place], bytes]
) -> None:
    """P-01 … P-03, P-05 … P-11, P-14, APEX-1: in all pieces on channel 0."""
    with target.row(row, log_lines=IN_FLIGHT), ExitStack() as stack:
        first = stack.enter_context(raw(target, "greeted"))
        octets = make(first.place())
        cuts = range(1, len(octets)) if len(octets) <= MAX_PIECES else range(1, 1)
        scripts = [[octets], octet_by_octet(octets), *(pieces(octets, cut) for cut in cuts)]
        peers = [first, *(stack.enter_context(raw(target, "greeted")) for _ in scripts[1:])]
        play(peers, scripts)
        for peer in peers:
            assert word(peer.until_closed()) == b""


@pytest.mark.parametrize(("row", "make"), POORLY_FORMED, ids=IDS)
def test_the_data_right_before_a_poorly_formed_frame_arrives(
    target: Target, bob: Inbox, row: str, make: Callable[[Place], bytes]
) -> None:
    """ "The legitimate message sent right before the bad input on the same connection is still delivered"."""
    with target.row(row, stores=True), raw(target, "attached") as peer:
        text = f"before {row}"
        good, msgno = peer.data_frame("bob@a.test", text)
        peer.send(good + make(peer.place()))
        heard = word(peer.until_closed())
        assert heard == b"" or heard.startswith(b"RPY %d %d . " % (peer.application.channel, msgno)), heard
        assert heard.count(b"END\r\n") <= 1, heard
        bob.expect(text)


def test_a_message_number_in_use_ends_the_session(target: Target, bob: Inbox) -> None:
    """P-04: the same number again while the reply is outstanding; what came first is carried all the same."""
    with target.row("P-04", stores=True):
        for cut in (0, 1, 40):
            with raw(target, "attached") as peer:
                text = f"P-04 {cut}"
                octets, msgno = peer.data_frame("bob@a.test", text)
                octets += peer.place().frame(msgno=msgno)
                play([peer], [pieces(octets, len(octets) - cut) if cut else [octets]])
                assert b"ERR" not in peer.until_closed()
                bob.expect(text)


def test_answers_of_the_wrong_kind_end_the_session(target: Target) -> None:
    """P-11 and APEX-1 where it counts: in reply to a message the server really sent."""
    replies: list[tuple[str, Callable[[int, int, int], bytes]]] = [
        ("NUL *", lambda c, m, s: b"NUL %d %d * %d 0\r\nEND\r\n" % (c, m, s)),
        ("NUL with content", lambda c, m, s: b"NUL %d %d . %d 1\r\nxEND\r\n" % (c, m, s)),
        (
            "NUL after RPY",
            lambda c, m, s: (
                b"RPY %d %d * %d 1\r\nxEND\r\n" % (c, m, s) + b"NUL %d %d . %d 0\r\nEND\r\n" % (c, m, s + 1)
            ),
        ),
        (
            "ERR after RPY",
            lambda c, m, s: (
                b"RPY %d %d * %d 1\r\nxEND\r\n" % (c, m, s) + b"ERR %d %d . %d 1\r\nyEND\r\n" % (c, m, s + 1)
            ),
        ),
        (
            "RPY after ANS",
            lambda c, m, s: (
                b"ANS %d %d . %d 1 0\r\nxEND\r\n" % (c, m, s) + b"RPY %d %d . %d 1\r\nyEND\r\n" % (c, m, s + 1)
            ),
        ),
        (
            "ANS after NUL",
            lambda c, m, s: b"NUL %d %d . %d 0\r\nEND\r\n" % (c, m, s) + b"ANS %d %d . %d 1 0\r\nxEND\r\n" % (c, m, s),
        ),
        ("answered twice", lambda c, m, s: 2 * (b"NUL %d %d . %d 0\r\nEND\r\n" % (c, m, s))),
    ]
    for name, make in replies:
        with target.row(f"P-11 {name}", stores=True), raw(target, "attached") as peer, raw(target, "attached") as other:
            other.application.data(other.application.endpoint, peer.application.endpoint, part=text_part(f"to {name}"))
            request = peer.application.session.next_request()
            channel = peer.application.session.channels[request.channel]
            peer.send(make(request.channel, request.msgno, channel.sent))
            assert word(peer.until_closed()) == b"", name


def test_octets_behind_the_tls_request_end_the_session(target: Target) -> None:
    """P-12: what stands behind `<ready />` in the same segment came in the clear, and is not read."""
    ready = BEEP_XML + f"<start number='1'><profile uri='{TLS}'><![CDATA[<ready />]]></profile></start>".encode()
    with target.row("P-12"):
        for behind in (b"x", b"RPY 0 0 . 0 2\r\n\r\nEND\r\n", b"MSG 0 2 . 9 0\r\n"):
            with raw(target, "greeted") as peer:
                peer.send(peer.place().frame(payload=ready) + behind)
                heard = peer.until_closed()
                assert b"proceed" not in heard or heard.endswith(b"END\r\n")
                assert b"\x16\x03" not in heard, "a handshake began"


def test_channels_without_end_are_refused_at_32(target: Target) -> None:
    """P-13: 450 for each one above the limit; those that are open work on, and the memory is bounded."""
    with target.row("P-13"), raw(target, "attached") as peer:
        session = peer.application.session
        before = target.rss()
        opened, refused = 0, set()
        for _ in range(1000):
            try:
                session.start([(APEX, "")])
                opened += 1
            except Refused as error:
                refused.add(error.code)
        assert opened + 2 <= CHANNELS + 1
        assert opened >= CHANNELS - 4
        assert refused == {"450"}
        with pytest.raises(Refused, match="550"):
            peer.application.terminate(13)
        assert target.rss() - before <= 2 * MIB


@pytest.mark.parametrize("number", ["2", "0", "-1", "2147483648", "one", ""])
def test_a_channel_number_that_is_not_the_initiators_is_refused(target: Target, number: str) -> None:
    """P-13, APEX-4: even, zero, out of range, no number. RFC 3080, section 2.3.1.2 shows 501 for parity."""
    with target.row("P-13"), raw(target, "greeted") as peer:
        start = f"<start number='{number}'><profile uri='{APEX}' /></start>"
        with pytest.raises(Refused, match="501"):
            peer.application.session.ask(0, BEEP_XML + start.encode())


GREETINGS = [
    ("P-14 none", BEEP_XML.join([b"MSG 0 1 . 0 106\r\n", START + b"END\r\n"])),
    ("P-14 DOCTYPE", BEEP_XML + b"<!DOCTYPE greeting [<!ENTITY a 'b'>]><greeting />"),
    ("P-14 XML declaration", BEEP_XML + b"<?xml version='1.0'?><greeting />"),
    ("P-14 other element", BEEP_XML + b"<ok />"),
    ("P-14 not XML", BEEP_XML + b"hello"),
    ("P-14 not UTF-8", BEEP_XML + b"<greeting localize='\xff' />"),
    ("P-14 as octets", b"\r\n<greeting />"),
]


@pytest.mark.parametrize(("row", "payload"), GREETINGS, ids=[row for row, _ in GREETINGS])
def test_a_greeting_that_is_none_ends_the_session(target: Target, row: str, payload: bytes) -> None:
    """P-14: what comes in its place is no greeting; the session ends without a word but the server's own greeting."""
    frame = payload if payload.startswith(b"MSG") else b"RPY 0 0 . 0 %d\r\n" % len(payload) + payload + b"END\r\n"
    scripts = [[frame], octet_by_octet(frame), *(pieces(frame, cut) for cut in range(1, len(frame), 5))]
    with target.row(row, log_lines=len(scripts)), ExitStack() as stack:
        peers = [stack.enter_context(RawStream(target, "apex")) for _ in scripts]
        play(peers, scripts)
        for peer in peers:
            heard = word(peer.until_closed())
            assert heard.count(b"END\r\n") == 1, heard
            assert b"<greeting" in heard


def test_a_greeting_of_a_megabyte_ends_at_the_first_window(target: Target) -> None:
    """P-14: refused at its header, of which more than 4,096 octets can be no part."""
    with target.row("P-14 1 MB"), RawStream(target, "apex") as peer:
        peer.send(b"RPY 0 0 . 0 1000000\r\n" + BEEP_XML + b"<greeting features='" + b"x" * 5000)
        assert word(peer.until_closed()).count(b"END\r\n") == 1


def test_a_hundred_thousand_frames_of_one_octet_cost_little(target: Target, bob: Inbox) -> None:
    """P-16: taken, at a cost per frame that no connection can make others pay for."""
    text = "P-16 " + "x" * 20_000
    with target.row("P-16", stores=True), raw(target, "attached") as peer:
        session, number = peer.application.session, peer.application.channel
        payload = text_payload(peer.application.endpoint, "bob@a.test", text)

        def attack() -> None:
            msgno = session.send(number, payload, frame=1)
            assert session.answered(number, msgno)[-1].keyword == "RPY"

        cost = cpu_of(target, attack, 1)
        bob.expect(text)
    print(f"{len(payload)} frames of one octet: {cost * 1e6 / len(payload):.1f} microseconds each")
    assert cost / len(payload) <= 100e-6


def test_a_message_without_end_is_refused_at_a_megabyte(target: Target) -> None:
    """P-17: intermediate frames for ever; 554 or the end, and never more than the limit in memory."""
    with target.row("P-17"), raw(target, "attached") as peer:
        session, number = peer.application.session, peer.application.channel
        before = target.rss()
        with pytest.raises((Broken, Refused)) as ended:
            session.answered(number, session.send(number, BEEP_XML + b"<data>" + b"x" * (4 * MIB)))
            raise Refused("250", "four megabytes were taken")
        assert isinstance(ended.value, Broken) or _code(ended.value) == "554", ended.value
        assert target.rss() - before <= 4 * MIB


def test_profiles_and_sign_ins_out_of_turn_are_refused(target: Target) -> None:
    """P-18: unknown profile 550, a second SASL 520, and the session lives; TLS after SASL ends it."""
    with target.row("P-18"), raw(target, "attached") as peer:
        session = peer.application.session
        for offer in ("http://iana.org/beep/FOO", "http://iana.org/beep/SASL/NONE", ""):
            with pytest.raises(Refused, match=r"55[03]|501|520"):
                session.start([(offer, "")])
        with pytest.raises(Refused, match=r"520|550|537"):
            peer.application.sign_in("alice@a.test", PASSWORD)
        with pytest.raises(Refused, match="550"):
            peer.application.terminate(13)
        with pytest.raises(Broken):
            session.start([(TLS, "<ready />")])


def test_wrong_passwords_are_refused_and_then_the_session_ends(target: Target) -> None:
    """P-18, X-34's kin: 535 for who does not know the password, and five tries a connection."""
    with target.row("P-18 password"), raw(target, "greeted") as peer:
        for _ in range(5):
            with pytest.raises((Refused, Broken)) as ended:
                peer.application.sign_in("alice@a.test", "wrong")
            assert isinstance(ended.value, Broken) or _code(ended.value) in ("535", "454"), ended.value
            if isinstance(ended.value, Broken):
                break
        with pytest.raises((Broken, Refused)):
            peer.application.sign_in("alice@a.test", PASSWORD)


def test_closing_what_is_not_open_and_closing_with_replies_owed(target: Target, bob: Inbox) -> None:
    """P-19: 550 for an unknown channel; an orderly end keeps every reply that is owed."""
    with target.row("P-19", stores=True), raw(target, "attached") as peer:
        session, number = peer.application.session, peer.application.channel
        for unknown in (7, 2, 2147483647):
            with pytest.raises(Refused, match=r"550|501"):
                session.close_channel(unknown)
        asked = [
            session.send(number, text_payload(peer.application.endpoint, "bob@a.test", f"P-19 {k}")) for k in range(10)
        ]
        close = session.send(0, BEEP_XML + b"<close number='0' code='200' />")
        said = session.answered(0, close)[-1]
        if said.keyword == "ERR":
            assert b"550" in said.payload
        for msgno in asked:
            assert session.answered(number, msgno)[-1].keyword == "RPY"
        for k in range(10):
            bob.expect(f"P-19 {k}")


def test_a_peer_that_never_opens_its_window_costs_a_bounded_memory(target: Target, bob: Inbox) -> None:
    """RFC 3081, section 3.1: what it may not be sent waits for it in the store, not in memory; others are served."""
    with target.row("window", stores=True), raw(target, "attached") as deaf, raw(target, "attached") as sender:
        deaf.application.session.opens_windows = False
        for k in range(300):
            if k == 100:  # what is kept once, whatever comes
                before = target.rss()
            text = f"{k} " + "w" * 30_000
            sender.application.data(sender.application.endpoint, deaf.application.endpoint, part=text_part(text))
        first = deaf.application.session
        heard = 0
        with pytest.raises(TimeoutError):
            first.next_request(timeout=1.0)
        heard = first.channels[deaf.application.channel].received
        assert heard <= 4096
        grown = target.rss() - before
        print(f"200 texts of 30,000 octets for a deaf peer: RSS grown by {grown / MIB:.2f} MiB")
        assert grown <= 200 * 30_000 + 3 * MIB  # what the store holds for anybody who is away, and no copy of it
        sender.application.data(sender.application.endpoint, "bob@a.test", part=text_part("beside the deaf one"))
        bob.expect("beside the deaf one")


def test_a_peer_that_asks_and_never_reads_is_not_read_on(target: Target) -> None:
    """TCP's own window: a client that sends requests and takes no answers stops being read, or is hung up on."""
    with target.row("unread", log_lines=2), raw(target, "greeted") as peer:
        before = target.rss()
        peer.sock.settimeout(1.0)
        session = peer.application.session
        seqno, msgno = session.channels[0].sent, session.channels[0].next_msgno
        with pytest.raises(OSError, match=r".*"):
            while True:
                peer.sock.sendall(Place(0, msgno, seqno, START).frame())
                seqno, msgno = seqno + len(START), msgno + 1
        assert target.rss() - before <= 4 * MIB


def test_who_says_an_octet_now_and_then_is_not_waited_for(tmp_path: Path) -> None:
    """P-20: the time to sign in ends, however the octets trickle; here 2 s instead of 30."""
    target = Target(tmp_path, "pre_auth_time = 2")
    try:
        with target.row("P-20", log_lines=3):
            for octets in (b"RPY 0 0 . 0 50\r\n" + b" " * 100, b"R" + b"P" * 100):
                with RawStream(target, "apex") as peer:
                    begun = time.monotonic()
                    trickle = iter(octets)
                    while peer.hear():
                        peer.send(bytes([next(trickle)]))
                        select.select([peer.sock], [], [], 0.2)  # the pace of somebody who is in no hurry
                    assert b"ERR" not in peer.heard
                    assert 0.0 < time.monotonic() - begun <= 5.0
            with raw(target, "attached") as peer:
                select.select([peer.sock], [], [], 3.0)
                with pytest.raises(Refused, match="550"):  # who has signed in may be silent
                    peer.application.terminate(13)
        target.check_canary()
    finally:
        target.close()


def test_memory_is_given_back(target: Target) -> None:
    """After ``REPEATS`` of every row, and close, RSS is within 1 MiB per 1,000 of what it was, or the heap's own step."""

    def attack_all(times: int) -> None:
        for _, make in POORLY_FORMED:
            with ExitStack() as stack:
                peers = [stack.enter_context(raw(target, "greeted")) for _ in range(times)]
                for peer in peers:
                    peer.send(make(peer.place()))
                for peer in peers:
                    peer.until_closed()

    with target.row("memory", log_lines=10_000):
        attack_all(max(1, REPEATS // 2))
        before = target.rss()
        attack_all(REPEATS)
        grown = target.rss() - before
    print(f"{REPEATS} x {len(POORLY_FORMED)} inputs: RSS {before / MIB:.1f} MiB, grown by {grown / MIB:.2f} MiB")
    assert grown <= MIB * max(8.0, REPEATS * len(POORLY_FORMED) / 1000)
