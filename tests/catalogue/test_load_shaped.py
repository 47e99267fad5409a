"""Load-shaped inputs, L-01 to L-12 of reliability.md section 2.16, against a running server with a canary beside.

``COMITY_LOAD=full`` runs them at the sizes of the text (some 20 minutes); CI runs the same rules smaller. The flooders
are other processes, so that neither the canary nor this one slows them or is slowed by them.

Not here: L-06 (another domain floods) and L-10 (subscriptions) need server-to-server XMPP and presence, L-08 (presence
flap with 500 watchers) needs subscriptions; all three come with those. L-11 (disk watermark) is in ``tests/store``; the
million lines of L-12 are counted in ``tests/test_logs.py``.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import pytest

from comity.net.memory import QUIET_SECONDS
from tests.catalogue.harness import CANARY_P99, Snapshot, Target

pytestmark = pytest.mark.slow

FULL = os.environ.get("COMITY_LOAD") == "full"
UNAUTHENTICATED = 4096
PER_ADDRESS = 50


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
            with flood("silent", port, size(5_000, 20_000), 1_000) as attack:
                assert attack.said()["opened"] == UNAUTHENTICATED
                assert target.descriptors() - before.descriptors == UNAUTHENTICATED
                assert (target.rss() - rss) / UNAUTHENTICATED <= most
                assert canary_p99(target, started) <= CANARY_P99
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
    assert p99 <= 1.0
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
