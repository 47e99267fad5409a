"""Load-shaped inputs, L-01 to L-12 of reliability.md section 2.16, against a running server with a canary beside.

``COMITY_LOAD=full`` runs them at the sizes of the text (some 20 minutes); CI runs the same rules smaller. The flooders
are other processes, so that neither the canary nor this one slows them or is slowed by them.

Not here: L-06 (another domain floods) and L-10 (subscriptions) need server-to-server XMPP and presence, L-08 (presence
flap with 500 watchers) needs subscriptions; all three come with those. L-11 (disk watermark) is in ``tests/store``; the
million lines of L-12 are counted in ``tests/test_logs.py``.
"""

from __future__ import annotations

import base64
import json
import os
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, cast

import pytest

from comity.net.memory import QUIET_SECONDS
from tests.catalogue.harness import BOB, CANARY_P99, PASSWORD, Inbox, Snapshot, Target
from tests.catalogue.raw import HEADER, RawSipUdp, RawXmpp, authorization, sip_status
from tests.catalogue.sip_agent import CRLF, Agent, Wire
from tests.load.idle import account
from tests.load.measure import prepare
from tests.paths.kit import ServerProcess

pytestmark = pytest.mark.slow

FULL = os.environ.get("COMITY_LOAD") == "full"
UNAUTHENTICATED = 4096
PER_ADDRESS = 50
HOLDS = max(1.0, CANARY_P99)
"""Seconds the canary may wait in the middle of a wave; over the whole module G4's bound holds."""


def size(ci: float, full: float) -> float:
    """A size of the text, or what CI has time for."""
    return full if FULL else ci


class Flood:
    """One attacker process."""

    def __init__(self, kind: str, port: int, *arguments: float) -> None:
        command = [sys.executable, "-m", "tests.load.flood", kind, str(port), *map(str, arguments)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._said: dict[str, float] | None = None

    def said(self) -> dict[str, float]:
        """What it did, when it is done."""
        stdout: IO[bytes] | None = self._process.stdout
        assert stdout is not None
        if self._said is None:
            self._said = json.loads(stdout.readline())
        return self._said

    def end(self) -> None:
        """Let go of its connections."""
        self._process.communicate(b"")


@contextmanager
def flood(kind: str, port: int, *arguments: float) -> Iterator[Flood]:
    """An attacker as long as the context lasts."""
    attacker = Flood(kind, port, *arguments)
    try:
        yield attacker
    finally:
        attacker.end()


def wait_for_descriptors(target: Target, before: Snapshot) -> None:
    """Wait until what strangers had open is closed."""
    target._wait_until(lambda: target.descriptors() <= before.descriptors, "descriptors stay open")


def wait_for_memory(target: Target, most: int) -> None:
    """Wait until the server is no larger than ``most`` octets."""
    target._wait_until(lambda: target.rss() <= most, f"memory does not come back to {most >> 20} MiB")


def canary_p99(target: Target, since: float) -> float:
    """Seconds, of what was sent after ``since``."""
    latencies = sorted(sample.latency for sample in target.canary.samples if sample.sent >= since)
    assert latencies, "the canary said nothing"
    return latencies[int(len(latencies) * 0.99)]


def waiting(target: Target, name: str) -> int:
    """Messages stored for one user and not delivered yet."""
    lanes = json.loads(target.server.run("queue", "list", "--json", "-c", str(target.server.config)))
    return sum(int(lane["pending"]) for lane in lanes if f"{name}@a.test" in lane["lane"])


class TestSilentConnections:
    def test_one_address_gets_fifty_connections(self, target: Target) -> None:
        """L-01."""
        before = target.snapshot()
        with flood("silent", target.server.port("xmpp", "tcp")[1], size(2_000, 20_000), 1) as attack:
            assert attack.said()["opened"] == PER_ADDRESS
            assert target.descriptors() - before.descriptors == PER_ADDRESS
            target.canary.wait_for_round(time.monotonic())
        target.check_after("L-01", before, log_lines=2)

    @pytest.mark.parametrize(("transport", "most"), [("tcp", 16 * 1024), ("tls", 96 * 1024)])
    def test_many_addresses_get_four_thousand_and_ninety_six(self, target: Target, transport: str, most: int) -> None:
        """L-01, G7: bounded in number and in memory, which goes back, and the canary is answered all the time.

        Done twice: what the first wave leaves is the interpreter's own reserve, which the second must not add to."""
        port = target.server.port("xmpp", "tls" if transport == "tls" else "tcp")[1]
        left = 0
        for _ in range(2):
            before, rss = target.snapshot(), target.rss()
            started = time.monotonic()
            # Under TLS the time for a handshake would be over for the first of 20,000 before the last comes.
            with flood("silent", port, size(5_000, 20_000 if transport == "tcp" else 5_000), 1_000) as attack:
                assert attack.said()["opened"] == UNAUTHENTICATED
                assert target.descriptors() - before.descriptors == UNAUTHENTICATED
                assert (target.rss() - rss) / UNAUTHENTICATED <= most
                assert canary_p99(target, started) <= HOLDS
            target.check_after("L-01", before, log_lines=4)
            if left:
                wait_for_memory(target, left + 4 * 2**20)
            else:
                target.canary.wait_for_round(time.monotonic() + QUIET_SECONDS)
                left = target.rss()


def test_connect_and_close_leaves_nothing(target: Target) -> None:
    """L-02, CVE-2026-43506: after a warm-up, memory stays where it is however many come and go."""
    port = target.server.port("xmpp", "tcp")[1]
    with flood("churn", port, 2, 2_000, 100) as attack:
        attack.said()
    before = target.snapshot()
    wait_for_descriptors(target, before)
    rss = target.rss()
    with flood("churn", port, size(6, 60), 2_000, 100) as attack:
        done = attack.said()
    assert done["count"] >= 500 * done["seconds"], "the attacker is too slow to show anything"
    target.check_after("L-02", before, log_lines=4)
    assert target.rss() - rss <= 2 * 2**20, f"{(target.rss() - rss) / done['count']:.0f} octets a connection"


def test_tls_handshakes_half_aborted(target: Target) -> None:
    """L-03: the canary waits a second at most, and memory comes back."""
    port = target.server.port("xmpp", "tls")[1]
    before = target.snapshot()
    started = time.monotonic()
    with (
        flood("handshakes", port, size(6, 60), 1_000, 100) as one,
        flood("handshakes", port, size(6, 60), 1_000, 100) as two,
    ):
        rate = sum(f.said()["count"] / f.said()["seconds"] for f in (one, two))
    assert rate >= 200, "the attackers are too slow to show anything"
    p99 = canary_p99(target, started)
    # This row has a bound of its own, wider than the module's.
    target.canary.samples[:] = [sample for sample in target.canary.samples if sample.sent < started]
    assert p99 <= HOLDS
    target.check_after("L-03", before, log_lines=6)


def test_one_address_may_not_connect_too_often(target: Target) -> None:
    """L-03: the accept-rate cap, one line in the log for all that was refused."""
    before = target.snapshot()
    with flood("churn", target.server.port("xmpp", "tcp")[1], 3, 2_000, 1) as attack:
        assert attack.said()["count"] >= 800
    target.check_after("L-03", before, log_lines=3)
    log = target.log()
    assert (
        len(re.findall(r"Connection refused: too many a second from one address \(", log)) <= 1 + time.monotonic() // 60
    )


# --- users who send or read at the wrong pace ------------------------------------------------------------------------

BOBS = 200
"""Messages that wait for bob in L-04; of 60 KiB each, so that a few fill what one connection may hold."""
ROOMY = "user_messages = 100000\nuser_message_burst = 100000\nstored_messages = 1000\npre_auth_time = 6"


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server whose users may send as fast as they can; quotas and buffers as always."""
    target = Target(tmp_path_factory.mktemp("roomy"), ROOMY, ("carol", "dave"))
    yield target
    target.check_canary()
    target.close()


def stanza(number: int, to: str, text: str) -> bytes:
    return f"<message type='chat' id='m{number}' to='{to}@a.test'><body>{text}</body></message>".encode()


def send_all(peer: RawXmpp, stanzas: list[bytes]) -> None:
    """Send under stream management and wait until the server has taken the last one."""
    peer.send(b"<enable xmlns='urn:xmpp:sm:3'/>")
    peer.until(rb"<enabled[^>]*>")
    for start in range(0, len(stanzas), 100):
        part = stanzas[start : start + 100]
        peer.send(b"".join(part) + b"<r xmlns='urn:xmpp:sm:3'/>")
        peer.until(rb"<a [^>]*h='%d'" % (start + len(part)))


def test_who_reads_nothing_is_given_256_kib_and_the_rest_waits_in_the_store(roomy: Target) -> None:
    """L-04: of 12 MB waiting, no more leaves the store for a client that acknowledges nothing."""
    with RawXmpp(roomy, "bound", "alice") as alice:
        send_all(alice, [stanza(n, "bob", f"{n} " + "x" * 60 * 1024) for n in range(BOBS)])
    before, rss = roomy.snapshot(), roomy.rss()
    with RawXmpp(roomy, "bound", "bob") as bob:
        bob.send(b"<enable xmlns='urn:xmpp:sm:3'/><presence/>")
        bob.until(rb"<message ")
        for _ in range(3):
            roomy.canary.wait_for_round(time.monotonic())
        assert roomy.rss() - rss <= 16 * 2**20, "what waits is in memory"
        bob.send(b"<iq type='get' id='end' to='a.test'><ping xmlns='urn:xmpp:ping'/></iq>")
        heard = bob.until(rb"id='end'")
        assert len(heard) <= 256 * 1024
        assert 1 <= heard.count(b"</message>") <= 4
        assert waiting(roomy, "bob") == BOBS, "all of it is still stored"
    roomy.check_after("L-04", before, stores=True)
    inbox = roomy.inbox("xmpp", BOB)
    inbox.expect(f"{BOBS - 1} " + "x" * 60 * 1024)
    assert [int((text or "").split()[0]) for text in dict.fromkeys(inbox.texts)] == list(range(BOBS))
    inbox.close()


def test_quota_of_a_user_who_is_away_is_said_in_each_protocol(roomy: Target) -> None:
    """L-07: 1,000 wait, the next is refused for now; others are not affected."""
    with RawXmpp(roomy, "bound", "alice") as alice:
        send_all(alice, [stanza(n, "carol", f"waits {n}") for n in range(1_000)])
        before = roomy.snapshot()
        for n in range(int(size(50, 99_000))):
            alice.send(stanza(1_000 + n, "carol", "one too many"))
            answer = alice.until(rb"</message>")
            alice.send(b"<a xmlns='urn:xmpp:sm:3' h='%d'/>" % (n + 1))
            assert re.search(rb"<message[^>]* type='error'.*<error type='wait'><resource-constraint ", answer), answer
        alice.send(stanza(0, "dave", "to another") + b"<r xmlns='urn:xmpp:sm:3'/>")
        alice.until(rb"<a [^>]*h='\d+'")
    wires: tuple[Wire, ...] = ("udp", "tcp")
    for wire in wires:
        with Agent(roomy, wire) as agent:
            assert sip_status(agent.ask(agent.sign(agent.message("one too many", to="sip:carol@a.test")))) == 480
    assert roomy.records() == before.records + 1
    roomy.check_after("L-07", before, stores=True)


def test_one_user_is_shaped_and_nobody_else_notices(target: Target, bob: Inbox) -> None:
    """L-05: 100 a second are 10 a second after a burst of 100; nothing is refused or lost, it is taken later."""
    seconds = size(2.5, 600)
    before = target.snapshot()
    calm_since = time.monotonic()
    for _ in range(5):
        target.canary.wait_for_round(time.monotonic())
    busy_since = time.monotonic()
    seen = len(bob.texts)
    with RawXmpp(target, "bound", "alice") as alice:
        alice.sock.setblocking(False)
        started, number, waiting = time.monotonic(), 0, b""
        while (elapsed := time.monotonic() - started) < seconds:
            while number < elapsed * 100:
                waiting += stanza(number, "bob", f"shaped {number}")
                number += 1
            try:
                waiting = waiting[alice.sock.send(waiting) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                pass  # the server does not read: that is how it shapes
            target.canary.wait_for_round(time.monotonic())
        arrived = len(bob.texts) - seen
        most = 100 + 10 * (time.monotonic() - started)
        assert 0.7 * most <= arrived <= most + 20, f"{arrived} arrived in {seconds:.0f} s, {number} were sent"
        if not FULL:  # there, what the kernel holds by now would take an hour
            bob.expect(f"shaped {number - 1}")
            assert time.monotonic() - started >= (number - 120) / 10
    assert list(bob.texts[seen:]) == [f"shaped {n}" for n in range(len(bob.texts) - seen)]
    calm, busy = canary_p99(target, calm_since), canary_p99(target, busy_since)
    sys.stdout.write(f"L-05: canary p99 {calm * 1000:.0f} ms before, {busy * 1000:.0f} ms meanwhile\n")
    assert busy <= max(1.2 * calm, CANARY_P99), f"p99 {calm * 1000:.0f} ms before, {busy * 1000:.0f} ms meanwhile"
    if not FULL:
        target.check_after("L-05", before, log_lines=0, stores=True)


def test_identical_bad_inputs_are_one_line_a_minute_with_a_count(target: Target) -> None:
    """L-12: by SIP and by XMPP; the exact count of a million is in ``tests/test_logs.py``."""
    target.canary.wait_for_round(time.monotonic())
    before = target.snapshot()
    started = time.monotonic()
    count = int(size(2_000, 1_000_000))
    with RawSipUdp(target) as phone:
        for _ in range(count):
            phone.send(b"MESSAGE sip:bob@a.test SIP/2.0\r\nVia: nonsense\r\n\r\n")
        phone.send(b"OPTIONS sip:a.test SIP/2.0\r\nVia: nonsense\r\n\r\n")
    for _ in range(int(size(100, 10_000))):
        with RawXmpp(target) as peer:
            peer.send(b"<nonsense/>")
            peer.until_closed()
    minutes = int((time.monotonic() - started) // 60) + 1
    target.check_after("L-12", before, log_lines=2 * minutes)
    lines = target.log()[before.log :]
    assert len(re.findall(r"more times", lines)) <= 2 * minutes
    assert PASSWORD not in target.log()
    assert not re.search(r"waits \d|shaped \d|canary \d", target.log()), "a body is in the log"


def test_five_hundred_reconnect_at_once_after_a_kill(tmp_path: Path) -> None:
    """L-09: all are in within 30 s, and what waited for them arrives."""
    people, devices = 50, 10
    server = prepare(tmp_path, people * devices)
    server.start()
    with closing_stream(server) as alice:
        send_all(alice, [stanza(n, account(n * devices), f"for you {n}") for n in range(people)])
    assert server.waiting() == people
    server.kill()
    server.start()
    started = time.monotonic()
    with ExitStack() as stack:
        groups = [stack.enter_context(devices_of(server, first, 100)) for first in range(0, people * devices, 100)]
        for group in groups:
            assert group.stdout is not None
            assert group.stdout.readline() == b"ready\n"
        took = time.monotonic() - started
        assert took <= 30, f"it took {took:.1f} s"
        while server.waiting():
            assert time.monotonic() - started < 60, "what waited is not delivered"
        heard: set[str] = set()
        for group in groups:
            out, _ = group.communicate(b"")
            heard.update(json.loads(out))
    assert heard == {f"for you {n}" for n in range(people)}
    assert server.stop() == 0


@contextmanager
def closing_stream(server: ServerProcess) -> Iterator[RawXmpp]:
    """Alice on a server without a canary."""
    with RawXmpp(cast("Target", Bare(server)), "bound", "alice") as peer:
        yield peer


class Bare:
    """What ``RawStream`` asks of a target."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server

    def address(self) -> str:
        return "127.0.0.1"


@contextmanager
def devices_of(server: ServerProcess, first: int, count: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose devices sign in over TLS and take what they are sent."""
    ca = str(server.directory / "data" / "tls" / "ca.pem")
    port = str(server.port("xmpp", "tls")[1])
    command = [sys.executable, "-m", "tests.load.idle", port, str(count), "taking", str(first), ca]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


class TestBans:
    def test_twenty_failures_from_one_address_close_every_door_to_it(self, target: Target) -> None:
        """S-26, section 6.2: five a connection, twenty an address, then an hour; nobody else is affected."""
        before = target.snapshot()
        address = target.address()
        wrong = base64.b64encode(b"\0alice\0wrong")
        auth = b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>" + wrong + b"</auth>"
        for connection in range(4):
            with RawXmpp(target, "tls", address=address) as guesser:
                guesser.open()
                for _ in range(4):
                    guesser.send(auth)
                    guesser.until(rb"<not-authorized/></failure>")
                guesser.send(auth)
                said = guesser.until_closed()
                assert b"policy-violation" in said, f"connection {connection}: {said!r}"
        with RawXmpp(target, address=address) as banned:
            banned.send(HEADER)
            assert b"policy-violation" in banned.until_closed()
        with Agent(target, "tcp", address=address) as phone:
            assert sip_status(phone.ask(phone.message("hello"))) == 403
        with RawXmpp(target, "bound", "alice"), Agent(target, "tcp") as phone:
            assert sip_status(phone.ask(phone.message("hello"))) == 401
        target.check_after("S-26", before, log_lines=3)
        assert f"{address} is banned for 3600 s after 20 failed sign-ins" in target.log()

    def test_twenty_wrong_passwords_by_sip_are_a_ban_too(self, target: Target) -> None:
        """S-26: by UDP silence answers, and XMPP is closed to the address as well."""
        before = target.snapshot()
        address = target.address()
        statuses = []
        for _ in range(4):
            with Agent(target, "tcp", address=address) as phone:
                challenge = phone.ask(phone.message("x"))
                for _ in range(5):
                    request = phone.message("x")
                    line = authorization(challenge, "MESSAGE", "sip:bob@a.test", password="wrong")
                    head, gap, body = request.partition(CRLF * 2)
                    phone.send(head + CRLF + line.removesuffix(CRLF) + gap + body)
                    challenge = phone.hear()
                    statuses.append(sip_status(challenge))
        assert set(statuses) <= {401, 403}
        with RawXmpp(target, address=address) as banned:
            banned.send(HEADER)
            assert b"policy-violation" in banned.until_closed()
        target.check_after("S-26", before, log_lines=2)


def test_strangers_time_ends(roomy: Target) -> None:
    """Section 6.2, pre-auth time (here 6 s): without a byte, after the TLS handshake, and in a stanza begun."""
    before = roomy.snapshot()
    started = time.monotonic()
    with RawXmpp(roomy) as silent, RawXmpp(roomy, "tls") as secure, RawXmpp(roomy) as begun:
        begun.send(HEADER + b"<auth")
        secure.open()
        for peer in (silent, secure, begun):
            assert b"connection-timeout" in peer.until_closed()
        assert 5 <= time.monotonic() - started <= 15
    roomy.check_after("pre-auth time", before, log_lines=1)
