"""Presence documents and a stock client's own reader and writer of them: PJSIP's, in PJSUA (T9, PRES-2, PRES-5, PRES-16).

A few lines of SIP stand for the presence server that is still to come; the documents on both sides are the real ones. What we
notify has no note: this PJSUA (2.15) aborts on any document with one (``std::bad_alloc``), the documents it writes itself included.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from comity.cpim.address import Address
from comity.cpim.composition import Publication, compose_presence
from comity.cpim.presence import Note, PresenceDocument
from comity.cpim.presence_rules import Permissions, SubHandling, filter_document
from comity.cpim.presence_state import Availability, PresenceState, document_state, offline_document, state_document
from comity.errors import MalformedMessage
from tests.interop.program import Program
from tests.peers import need_module

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
ALICE = Address("pres", "alice", "127.0.0.1")
ROOT = Path(__file__).resolve().parents[2]


class Server:
    """Answers PUBLISH and SUBSCRIBE on a UDP port, keeps what is published, notifies the one subscriber."""

    def __init__(self, first: bytes) -> None:
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.1)
        self.host_port = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.published: list[bytes] = []
        self._first, self._numbers = first, count(1)
        self._dialog: tuple[tuple[str, int], str] | None = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while not self._is_over.is_set():
            try:
                packet, source = self._socket.recvfrom(65535)
            except TimeoutError:
                continue
            head, _, body = packet.partition(b"\r\n\r\n")
            self._answer(head.decode(), body, source)

    def _answer(self, head: str, body: bytes, source: tuple[str, int]) -> None:
        method = head.partition(" ")[0]
        if method not in ("PUBLISH", "SUBSCRIBE"):
            return
        kept = "".join(f"{line}\r\n" for line in head.split("\r\n") if re.match(r"(?i)(via|from|call-id|cseq):", line))
        to = value(head, "to")
        to = to if ";tag=" in to else f"{to};tag=comity"
        more = (
            f"SIP-ETag: e{next(self._numbers)}\r\n" if method == "PUBLISH" else f"Contact: <sip:{self.host_port}>\r\n"
        )
        answer = f"SIP/2.0 200 OK\r\n{kept}To: {to}\r\nExpires: 600\r\n{more}Content-Length: 0\r\n\r\n"
        self._socket.sendto(answer.encode(), source)
        if method == "PUBLISH":
            self.published.append(body)
        elif self._dialog is None:
            target = re.sub(r"[<>]|;.*", "", value(head, "contact"))
            self._dialog = source, f"{target}|{to}|{value(head, 'from')}|{value(head, 'call-id')}"
            self.notify(self._first)

    def notify(self, document: bytes) -> None:
        """Send one NOTIFY inside the dialog."""
        assert self._dialog is not None, "nobody has subscribed"
        source, dialog = self._dialog
        target, from_, to, call_id = dialog.split("|")
        number = next(self._numbers)
        head = (
            f"NOTIFY {target} SIP/2.0\r\nVia: SIP/2.0/UDP {self.host_port};branch=z9hG4bKn{number}\r\nMax-Forwards: 70\r\n"
            f"From: {from_}\r\nTo: {to}\r\nCall-ID: {call_id}\r\nCSeq: {number} NOTIFY\r\nContact: <sip:{self.host_port}>\r\n"
            "Event: presence\r\nSubscription-State: active;expires=600\r\nContent-Type: application/pidf+xml\r\n"
            f"Content-Length: {len(document)}\r\n\r\n"
        )
        self._socket.sendto(head.encode() + document, source)


def value(head: str, name: str) -> str:
    found = re.search(rf"(?im)^{name}:\s*(.*?)\s*$", head)
    assert found is not None, f"no {name} in {head}"
    return found[1]


class Bob:
    """PJSUA: publishes its own presence and watches alice's."""

    def __init__(self, home: Path, server: Server) -> None:
        self.server = server
        argv = [sys.executable, "-W", "ignore", "-m", "tests.interop.pjsua_presence", server.host_port]
        self.program = Program("pjsua", argv, home, terminal=False, env={"PYTHONPATH": f"{ROOT}/src:{ROOT}"})

    def seen(self) -> list[dict[str, str]]:
        lines = self.program.output.rpartition("\n")[0].split("\n")
        return [found for line in lines if line.startswith("{") and "buddy" in (found := json.loads(line))]

    def shows(self, status: str, activity: str) -> None:
        def look() -> bool:
            last = self.seen()[-1]
            return (last["buddy"], last["activity"]) == (status, activity)

        self.program.wait_until(look, lambda: f"{status} {activity} in {self.seen()[-3:]}")

    def publishes(self, status: str, activity: str = "", note: str = "") -> bytes:
        before = len(self.server.published)
        self.program.type(json.dumps({"status": status, "activity": activity, "note": note}) + "\n")
        self.program.wait_until(lambda: len(self.server.published) > before, "a PUBLISH")
        return self.server.published[-1]


@pytest.fixture(scope="module")
def bob(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bob]:
    need_module("pjsua2")
    server = Server(offline_document(ALICE, NOON).raw)
    try:
        found = Bob(tmp_path_factory.mktemp("pjsua"), server)
        try:
            found.program.wait_until(found.seen, "its first view of alice")
            yield found
        finally:
            found.program.stop()
    finally:
        server.close()


@pytest.mark.parametrize(
    ("state", "status", "activity"),
    [
        (Availability.AVAILABLE, "online", ""),
        (Availability.CHAT, "online", ""),
        (Availability.AWAY, "online", "away"),
        (Availability.XA, "online", "away"),
        (Availability.DND, "online", "busy"),
        (Availability.OFFLINE, "offline", ""),
    ],
)
def test_it_shows_every_state_we_write(bob: Bob, state: Availability, status: str, activity: str) -> None:
    """T9, PRES-16: what stands in ``show`` stands in RPID too, for those who know only that."""
    view = state_document(ALICE, "ID-phone", PresenceState(state), NOON)
    assert view is not None
    bob.server.notify(view.raw)
    bob.shows(status, activity)


@pytest.mark.parametrize(
    ("status", "activity", "note", "expected"),
    [
        ("online", "", "", Availability.AVAILABLE),
        ("online", "busy", "In a meeting", Availability.DND),
        ("online", "away", "žluťoučký kůň", Availability.AWAY),
        ("offline", "", "", Availability.OFFLINE),
    ],
)
def test_we_read_every_state_it_publishes(
    bob: Bob, status: str, activity: str, note: str, expected: Availability
) -> None:
    """T9, PRES-2, PRES-5: entity, basic, activity and note of a real PUBLISH."""
    view = PresenceDocument.parse(bob.publishes(status, activity, note))
    state = document_state(view, datetime.now(UTC))
    assert state.availability is expected
    assert view.presentity == Address("pres", "bob", "127.0.0.1")
    assert state.notes == ((Note(note),) if note else ())


def test_a_note_that_it_does_not_escape_is_refused(bob: Bob) -> None:
    """PRES-14: PJSIP writes "&" and "<" as they are, which is no XML; guessing what was meant is not ours."""
    octets = bob.publishes("online", "", "Tom & Jerry")
    assert b"Tom & Jerry" in octets
    with pytest.raises(MalformedMessage) as caught:
        PresenceDocument.parse(octets)
    assert caught.value.offset == octets.index(b"& Jerry") + 1
    assert bob.publishes("online")


def test_it_shows_what_we_composed_of_its_own_document(bob: Bob) -> None:
    """PRES-21, ACL-13: a published document goes through composition and filter and is still read."""
    published = PresenceDocument.parse(bob.publishes("online", "busy", "In a meeting").replace(b"In a meeting", b""))
    presentity = Address("pres", "bob", "127.0.0.1")
    publication = Publication("pjsua", published, NOON, NOON + timedelta(hours=1))
    composed = compose_presence(presentity, [publication], NOON).document
    bob.server.notify(composed.raw)
    bob.shows("online", "busy")
    services = Permissions(SubHandling.ALLOW, services=frozenset({("all", "")}))
    bob.server.notify(filter_document(composed, services).raw)
    bob.shows("online", "")
