"""Many bad streams in flight at once: octets in pieces the server reads one by one, and what it says to each.

TCP joins what is sent in pieces, so a split is a split only if the server has read the first piece before the second
leaves. ``play`` waits for exactly that: the kernel tells how many octets a socket has not read yet.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any
from xml.etree import ElementTree

from lxml import etree

from tests.catalogue.harness import PATIENCE, Target
from tests.catalogue.raw import HEADER, RawStream, RawXmpp, Stage

MAX_PIECES = 512
"""Inputs up to this size are sent octet by octet and split at every offset (reliability.md section 2)."""
IN_FLIGHT = 200
"""Connections at once."""
_STREAM_ERRORS = "{urn:ietf:params:xml:ns:xmpp-streams}"
_STREAMS = "{http://etherx.jabber.org/streams}"
_SOCK_DIAG, _BY_FAMILY, _REQUEST = 4, 20, 1
_ALL_STATES = _NO_COOKIE = 0xFFFFFFFF
_RQUEUE = 16 + 4 + 48 + 4
"""Place of ``idiag_rqueue``: after the netlink header, four octets, the socket's id, and ``idiag_expires``."""
_DECLARATION = re.compile(rb"<\?xml version='1\.0'\?>")


@dataclass(frozen=True, slots=True)
class Answer:
    """All the server said on a stream from some point to its end."""

    elements: tuple[etree._Element, ...]
    """Top-level elements in order."""
    octets: bytes

    @property
    def condition(self) -> str:
        """The stream error's condition, "" if there is none."""
        errors = [e for e in self.elements if e.tag == _STREAMS + "error"]
        assert len(errors) <= 1, self.octets
        if not errors:
            return ""
        assert errors[0] is self.elements[-1], f"something follows the stream error: {self.octets!r}"
        conditions = [c.tag for c in errors[0] if c.tag.startswith(_STREAM_ERRORS) and not c.tag.endswith("}text")]
        assert len(conditions) == 1, self.octets
        return str(conditions[0]).removeprefix(_STREAM_ERRORS)

    @property
    def details(self) -> list[str]:
        """Clark names of everything inside the stream error."""
        return [str(c.tag) for e in self.elements if e.tag == _STREAMS + "error" for c in e]


def read_answer(octets: bytes) -> Answer:
    """Read what came on a closed stream: one well-formed document for lxml and for expat, or the rest of one."""
    assert len(_DECLARATION.findall(octets)) <= 1, octets
    whole = octets if b"<stream:stream" in octets else HEADER + octets
    assert whole.endswith(b"</stream:stream>"), octets
    root = etree.fromstring(whole, etree.XMLParser(resolve_entities=False, no_network=True))
    assert tree(root) == tree(ElementTree.fromstring(whole)), f"two readers see two things (X-22): {octets!r}"
    return Answer(tuple(root), octets)


Tree = tuple[str, dict[str, str], tuple[Any, ...]]


def tree(element: Any) -> Tree:
    """An element of lxml or of ElementTree (expat) as plain values; text is joined."""
    children: list[Any] = [element.text] if element.text else []
    for child in element:
        children.append(tree(child))
        if child.tail:
            children.append(child.tail)
    return element.tag, dict(element.attrib), tuple(children)


def pieces(octets: bytes, cut: int) -> list[bytes]:
    """In two parts, cut there."""
    return [octets[:cut], octets[cut:]]


def octet_by_octet(octets: bytes) -> list[bytes]:
    """One octet each, or, of a long input, 64 pieces that end at odd places."""
    size = 1 if len(octets) <= MAX_PIECES else len(octets) // 61
    return [octets[i : i + size] for i in range(0, len(octets), size)]


@contextmanager
def streams(target: Target, count: int, stage: Stage, *, is_open: bool = True) -> Iterator[list[RawXmpp]]:
    """That many streams at ``stage``; ``is_open``: with the header sent and the features read."""
    with ExitStack() as stack:
        peers = [stack.enter_context(RawXmpp(target, stage)) for _ in range(count)]
        if is_open and stage != "bound":
            for peer in peers:
                peer.open()
        yield peers


def play(peers: Sequence[RawStream], scripts: Iterable[Sequence[bytes]]) -> None:
    """Send every peer its pieces; no piece leaves before the server has read the one before, none after its end."""
    for step in zip_longest(*scripts, fillvalue=b""):
        speaking = [(peer, piece) for peer, piece in zip(peers, step, strict=True) if piece and peer.hear()]
        for peer, piece in speaking:
            peer.send(piece)
        wait_until_read([peer for peer, _ in speaking])


def wait_until_read(peers: Sequence[RawStream]) -> None:
    """Wait until the server has taken all that these peers have sent from its kernel."""
    deadline = time.monotonic() + PATIENCE
    for peer in peers:
        while unread([peer]):
            assert time.monotonic() < deadline, "the server does not read"
            os.sched_yield()


def unread(peers: Sequence[RawStream]) -> int:
    """Octets of these peers that wait in the server's kernel."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as diagnosis:
        diagnosis.settimeout(PATIENCE)
        return sum(_unread(peer.sock, diagnosis) for peer in peers)


def answers(peers: Sequence[RawStream]) -> list[Answer]:
    """What each was told; every stream must end."""
    return [read_answer(peer.until_closed()) for peer in peers]


def cpu_of(target: Target, act: Callable[[], object], tries: int = 7) -> float:
    """The least CPU time (seconds, all the server's threads) of several tries: the canary computes beside them."""
    costs: list[float] = []
    for _ in range(tries):
        before = target.cpu()
        act()
        costs.append(target.cpu() - before)
    return min(costs)


def _unread(sock: socket.socket, diagnosis: socket.socket) -> int:
    """Octets in the receive queue of the socket at the other end (sock_diag(7)); 0 if it is gone."""
    try:
        (host, port), (peer_host, peer_port) = sock.getsockname()[:2], sock.getpeername()[:2]
    except OSError:
        return 0
    addresses = b"".join(socket.inet_aton(host) + bytes(12) for host in (peer_host, host))
    id = struct.pack("!HH", peer_port, port) + addresses + struct.pack("=III", 0, _NO_COOKIE, _NO_COOKIE)
    request = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, _ALL_STATES) + id
    diagnosis.send(struct.pack("=IHHII", 16 + len(request), _BY_FAMILY, _REQUEST, 0, 0) + request)
    reply = diagnosis.recv(4096)
    if struct.unpack_from("=H", reply, 4)[0] != _BY_FAMILY:
        error = -struct.unpack_from("=i", reply, 16)[0]
        assert error == errno.ENOENT, os.strerror(error)
        return 0
    return int(struct.unpack_from("=I", reply, _RQUEUE)[0])


__all__ = [
    "IN_FLIGHT",
    "MAX_PIECES",
    "Answer",
    "Tree",
    "answers",
    "cpu_of",
    "octet_by_octet",
    "pieces",
    "play",
    "read_answer",
    "streams",
    "tree",
    "unread",
    "wait_until_read",
]
