"""Faults of section 3.3 of reliability.md that strike a running server's network and machine, a canary beside.

F-08 memory, F-09 descriptors, F-10 CPU, F-11 slow peers, F-12 resets, F-25 half-open connections. The store's own faults
are in ``tests/store``, certificates in ``tests/paths/test_certificates.py``.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.catalogue.harness import BOB, CANARY_P99, Target
from tests.catalogue.raw import HEADER, RawSipTcp, RawXmpp, Stage
from tests.catalogue.sip_agent import Agent
from tests.catalogue.test_load_shaped import FULL, canary_p99, flood, send_all, stanza, waiting

pytestmark = pytest.mark.slow


def reset(peer: RawXmpp | RawSipTcp) -> None:
    """Close with a reset (RST) instead of an end of stream."""
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


class TestResets:
    """F-12: in each state of each protocol; nothing is left, nothing is logged, nobody is harmed."""

    @pytest.mark.parametrize("stage", ["fresh", "tls", "authenticated", "bound"])
    @pytest.mark.parametrize("half", [b"", HEADER[:40], HEADER + b"<message to='bob@a.test'><body>never whole"])
    def test_xmpp(self, target: Target, stage: Stage, half: bytes) -> None:
        # Half a header is a mistake where a stanza is due: that may be said once.
        with target.row(f"F-12 {stage}", log_lines=1 if half else 0):
            peer = RawXmpp(target, stage)
            peer.send(half)
            reset(peer)

    def test_in_the_middle_of_a_tls_handshake(self, target: Target) -> None:
        with target.row("F-12 handshake"):
            peer = RawXmpp(target)
            peer.open()
            peer.send(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
            peer.until(rb"<proceed[^>]*/>")
            peer.send(b"\x16\x03\x01\x02\x00\x01\x00")
            reset(peer)

    @pytest.mark.parametrize("cut", [1, 60, -1, None])
    def test_sip(self, target: Target, cut: int | None) -> None:
        with target.row("F-12 sip", log_lines=0):
            agent = Agent(target, "tcp")
            agent.send(agent.message("never answered")[:cut])
            reset(agent.stream)

    def test_a_message_said_yes_to_is_delivered_though_its_sender_was_reset(self, target: Target) -> None:
        """F-K8: and one that was not is there or not, but whole."""
        bob = target.inbox("xmpp", BOB)
        alice = RawXmpp(target, "bound", "alice")
        send_all(alice, [stanza(1, "bob", "acknowledged")])
        alice.send(stanza(2, "bob", "perhaps"))
        reset(alice)
        bob.expect("acknowledged")
        target.canary.wait_for_round(time.monotonic())
        assert bob.texts in (["acknowledged"], ["acknowledged", "perhaps"])
        bob.close()


def test_descriptors_run_out_and_existing_work_goes_on(target: Target) -> None:
    """F-09: accept pauses, the canary talks on, no busy loop; afterwards everything is as before."""
    before = target.snapshot()
    _, hard = resource.prlimit(target.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(target.pid, resource.RLIMIT_NOFILE, (256, hard))
    started = time.monotonic()
    with ExitStack() as stack:
        for _ in range(300):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.bind((target.address(), 0))
            sock.connect_ex(target.server.port("xmpp", "tcp"))
        for _ in range(3):
            target.canary.wait_for_round(time.monotonic())
        assert target.descriptors() <= 256
        cpu, since = target.cpu(), time.monotonic()
        for _ in range(8):
            target.canary.wait_for_round(time.monotonic())
        load = (target.cpu() - cpu) / (time.monotonic() - since)
        assert load <= 0.35, f"{load * 100:.0f} % of a core while accepting rests"
    resource.prlimit(target.pid, resource.RLIMIT_NOFILE, (hard, hard))
    assert canary_p99(target, started) <= max(1.0, CANARY_P99)
    with RawXmpp(target, "bound", "alice"):
        pass
    target.check_after("F-09", before, log_lines=3)
    assert "No connection can be accepted for now" in target.log()


@contextmanager
def hogs(cpu: int, count: int) -> Iterator[None]:
    """Processes that do nothing but compute, on one processor."""
    code = f"import os\nos.sched_setaffinity(0, {{{cpu}}})\nprint(flush=True)\nwhile True: pass"
    with ExitStack() as stack:
        for _ in range(count):
            hog = stack.enter_context(subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE))
            stack.callback(hog.kill)
            assert hog.stdout is not None
            hog.stdout.readline()
        yield


def test_starved_of_cpu_nobody_is_taken_for_dead(target: Target) -> None:
    """F-10: with a third of one processor for itself the server keeps every connection, and every message arrives."""
    before = target.snapshot()
    started = time.monotonic()
    cpus = os.sched_getaffinity(target.pid)
    one = max(cpus)
    threads = [int(name) for name in os.listdir(f"/proc/{target.pid}/task")]
    with hogs(one, 2):
        for thread in threads:
            os.sched_setaffinity(thread, {one})
        deadline = time.monotonic() + (60 if FULL else 4)
        while time.monotonic() < deadline:
            target.canary.wait_for_round(time.monotonic())
    for thread in threads:
        os.sched_setaffinity(thread, cpus)
    target.check_after("F-10", before, log_lines=0)
    # Slow it may be; lost or disconnected is what the canary would have complained of.
    target.canary.samples[:] = [sample for sample in target.canary.samples if sample.sent < started]


def test_a_peer_that_reads_an_octet_at_a_time_holds_up_only_itself(target: Target) -> None:
    """F-11: its lane waits in the store, others' messages pass."""
    before = target.snapshot()
    with RawXmpp(target, "bound", "bob") as bob:
        bob.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        bob.send(b"<enable xmlns='urn:xmpp:sm:3'/><presence/>")
        bob.until(rb"<enabled[^>]*>")
        with RawXmpp(target, "bound", "alice") as alice:
            send_all(alice, [stanza(n, "bob", f"{n} " + "y" * 20_000) for n in range(40)])
        since = time.monotonic()
        for _ in range(8):
            octet = bob.sock.recv(1)
            assert octet
            bob.heard += octet
            target.canary.wait_for_round(time.monotonic())
        assert canary_p99(target, since) <= CANARY_P99
        taken = 0
        for n in range(40):
            heard = bob.until(rb"</message>")
            assert b"<body>%d y" % n in heard
            taken += len(re.findall(rb"<(?:message|presence|iq)[ >]", heard))
            bob.send(b"<a xmlns='urn:xmpp:sm:3' h='%d'/>" % taken)
    target._wait_until(lambda: not waiting(target, "bob"), "messages stay in the store")
    target.check_after("F-11", before, log_lines=0, stores=True)


def test_memory_runs_out_and_strangers_go_first(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F-08: near the end of its address space it lets nobody new in, and the canary talks on; then all is as before."""
    # Else glibc reserves 64 MiB of it for any thread, whenever it likes.
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    # And 8 MiB for the stack of each.
    stack = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (2**20, stack[1]))
    try:
        target = Target(tmp_path_factory.mktemp("tight"))
    finally:
        resource.setrlimit(resource.RLIMIT_STACK, stack)
    for _ in range(3):  # until its threads are there
        target.canary.wait_for_round(time.monotonic())
    with open(f"/proc/{target.pid}/status", encoding="ascii") as status:
        size = next(int(line.split()[1]) for line in status if line.startswith("VmSize")) * 1024
    resource.prlimit(target.pid, resource.RLIMIT_AS, (size + 64 * 2**20, resource.RLIM_INFINITY))
    with flood("silent", target.server.port("xmpp", "tls")[1], 4_500, 1_000) as attack:
        assert 0 < attack.said()["opened"] < 4_096
        for _ in range(3):
            target.canary.wait_for_round(time.monotonic())
    resource.prlimit(target.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert not target.canary.trouble
    assert "Connection refused: memory is short" in target.log()
    with RawXmpp(target, "bound", "alice"):
        pass
    target.close()


@pytest.mark.skipif(not FULL, reason="takes two minutes: COMITY_LOAD=full")
def test_a_peer_that_vanished_is_noticed_and_its_messages_are_stored_again(target: Target) -> None:
    """F-25: within 120 s; its packets are dropped by the kernel (nft), so that no reset tells."""
    nft = shutil.which("nft")
    assert nft, "nft is needed (apt install nftables)"
    before = target.snapshot()
    with RawXmpp(target, "bound", "bob") as bob:
        bob.send(b"<enable xmlns='urn:xmpp:sm:3' resume='true'/><presence/>")
        bob.until(rb"<enabled[^>]*>")
        drops = f"ip saddr {bob.address} drop\n ip daddr {bob.address} drop"
        rules = f"table ip vanished {{\n chain input {{\n type filter hook input priority 0\n {drops}\n }}\n}}\n"
        subprocess.run([nft, "-f", "-"], input=rules.encode(), check=True)
        try:
            with RawXmpp(target, "bound", "alice") as alice:
                send_all(alice, [stanza(1, "bob", "for the one who vanished")])
            started = time.monotonic()
            while target.descriptors() > before.descriptors:
                assert time.monotonic() - started <= 125, "the connection is still held"
                target.canary.wait_for_round(time.monotonic())
        finally:
            subprocess.run([nft, "delete", "table", "ip", "vanished"], check=True)
    assert waiting(target, "bob") == 1
    again = target.inbox("xmpp", BOB)
    again.expect("for the one who vanished")
    again.close()
