"""Measure what telling XMPP watchers costs a running server: ``python -m tests.load.watched [WATCHERS [CHANGES [tls]]]``.

The server is ``comity serve``. Alice changes her state; WATCHERS devices (ten an account) see her, and each change has come to all
of them before the next is made. Printed: CPU of the server process for each stanza told, and how many were lost.
"""

from __future__ import annotations

import re
import selectors
import ssl
import sys
import tempfile
import time
from pathlib import Path

from tests.load.idle import DEVICES, IdleClient
from tests.load.measure import cpu_seconds, prepare
from tests.paths.kit import ServerProcess

PATIENCE = 30.0
PER_STREAM = 8
"""Changes of one stream of Alice's: more at once are told later (L-08)."""
SHOWS = ("away", "dnd", "xa", "chat")


class Watcher(IdleClient):
    """A device that counts what it is told of Alice, and acknowledges it."""

    def __init__(self, number: int, port: int, context: ssl.SSLContext | None) -> None:
        super().__init__(number, port, context)
        self.rest = b""
        self.mark = b""
        self.told = 0
        self.stanzas = 0

    def read(self) -> int:
        """Take what is there; how many stanzas of Alice's came."""
        data = self.rest + self.sock.recv(65536)
        *whole, self.rest = re.split(rb"(?<=/>|e>)(?=<presence |<r |<iq |<message )", data)
        if self.rest.endswith((b"</presence>", b"/>", b"</iq>", b"</message>")):
            whole, self.rest = [*whole, self.rest], b""
        self.stanzas += sum(not part.startswith((b"<r ", b"<a ", b"<enabled")) for part in whole)
        told = sum(self.mark in part for part in whole if part.startswith(b"<presence"))
        if any(part.startswith(b"<r ") for part in whole):
            self.sock.sendall(b"<a xmlns='urn:xmpp:sm:3' h='%d'/>" % self.stanzas)
        self.told += told
        return told


class Publisher(IdleClient):
    """Alice."""

    def __init__(self, number: int, port: int, context: ssl.SSLContext | None) -> None:
        super().__init__(number, port, context)
        self.account = "alice"

    def say(self, show: str) -> None:
        self.sock.sendall(b"<presence><show>%s</show><status>gone fishing</status></presence>" % show.encode())

    def leave(self) -> None:
        self.ask(b"<presence type='unavailable'/></stream:stream>", b"</stream:stream>")
        self.sock.close()


def told_to_all(watchers: list[Watcher], selector: selectors.BaseSelector, wanted: int) -> bool:
    """Read until everybody was told ``wanted`` stanzas; False if that does not happen."""
    missing = sum(watcher.told < wanted for watcher in watchers)
    deadline = time.monotonic() + PATIENCE
    while missing and time.monotonic() < deadline:
        for key, _ in selector.select(1.0):
            before = key.data.told
            key.data.read()
            while getattr(key.data.sock, "pending", int)():
                key.data.read()
            missing -= before < wanted <= key.data.told
    return not missing


def measure(server: ServerProcess, count: int, changes: int, *, tls: bool) -> tuple[float, int]:
    """Microseconds of CPU for each stanza told, and how many were lost."""
    context = ssl.create_default_context(cafile=str(server.authority)) if tls else None
    port = server.port("xmpp", "tls" if tls else "tcp")[1]
    watchers = []
    for number in range(count):
        watcher = Watcher(number, port, context)
        watcher.sign_in()
        if number % DEVICES == 0:
            watcher.sock.sendall(b"<presence type='subscribe' to='alice@a.test'/>")
        watchers.append(watcher)
    used, told, lost, alice = 0.0, 0, 0, None
    with selectors.DefaultSelector() as selector:
        for watcher in watchers:
            selector.register(watcher.sock, selectors.EVENT_READ, watcher)
        for first in range(0, changes, PER_STREAM):
            if alice is not None:
                alice.leave()
            alice = Publisher(10**6 + first, port, context)
            for watcher in watchers:
                watcher.mark, watcher.told = b"from='alice@a.test/r%d'" % alice.number, -1
            alice.sign_in(keeps=False)
            assert told_to_all(watchers, selector, 0), "not everybody sees her"
            started, done = cpu_seconds(server), 0
            for done in range(1, min(PER_STREAM, changes - first) + 1):
                alice.say(SHOWS[done % len(SHOWS)])
                if not told_to_all(watchers, selector, done):
                    break
            used += cpu_seconds(server) - started
            told += sum(watcher.told for watcher in watchers)
            lost += done * count - sum(watcher.told for watcher in watchers)
    for watcher in watchers:
        watcher.sock.close()
    return used / told * 1e6, lost


def main(count: int, changes: int, *, tls: bool) -> None:
    """Print one line."""
    with tempfile.TemporaryDirectory() as directory:
        server = prepare(Path(directory), count)
        text = server.config.read_text("utf-8").replace("[policy]\n", '[policy]\npresence_default = "everyone"\n')
        server.config.write_text(text, "utf-8")
        server.start()
        try:
            each, lost = measure(server, count, changes, tls=tls)
        finally:
            server.stop()
    sys.stdout.write(f"{count} watchers, {changes} changes{', TLS' * tls}: {each:.1f} us CPU a stanza, {lost} lost\n")


if __name__ == "__main__":
    words = [*sys.argv[1:], *("1000", "20", "")[len(sys.argv) - 1 :]]
    main(int(words[0]), int(words[1]), tls=words[2] == "tls")
