"""The cheap no: what a datagram gets that came when there is no time to read it (RFC 3261 section 21.5.4, L-06, LG-12).

Place on the path: instead of step 2, for ``session.py``, when ``net/udp.py`` says that requests wait too long. It has to
cost a small part of what taking the request would, or refusing would be the overload: the few lines that an answer
echoes are cut from the octets, and nothing else is looked at. What cannot be cut at a glance is dropped, as the network
might have done.

Two rules its readers must keep. A refused request stays refused: its retransmission, read a moment later when there
is time again, must not be delivered after its sender was told no (invariant I3). And work under way comes first: answers,
REGISTER and retransmissions of what was taken are never refused here.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from zlib import crc32

from comity.bindings.sip.headers import Via, split_commas
from comity.bindings.sip.transaction import HostPort, ServerKey, ServerTransactions
from comity.errors import RemoteProtocolError

#: Methods that may be refused; a registration is what messages are delivered by.
METHODS = ("MESSAGE", "OPTIONS", "SUBSCRIBE", "PUBLISH", "NOTIFY")
LEAST_RETRY, MOST_RETRY = 2, 9
"""Seconds; spread by the branch, so that those refused together do not come back together."""

_REFUSABLE = tuple(f"{method} ".encode("ascii") for method in METHODS)
_ECHOED = {
    b"via": b"v",
    b"from": b"f",
    b"to": b"t",
    b"call-id": b"i",
    b"cseq": b"cseq",
    **{short: short for short in (b"v", b"f", b"t", b"i")},
    # As nearly everybody writes them, so that they need not be brought into lower case first.
    **{b"Via": b"v", b"From": b"f", b"To": b"t", b"Call-ID": b"i", b"CSeq": b"cseq"},
}
_PLAIN_VIA = re.compile(rb"SIP/2\.0/UDP ([0-9A-Za-z.-]+)(?::([1-9][0-9]{0,4}))?;branch=(z9hG4bK[0-9A-Za-z.~_-]+);rport")
"""The one form nearly every phone writes."""
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_HAS_TAG = re.compile(rb";[ \t]*tag[ \t]*=", re.I)


class Glimpse(NamedTuple):
    """What was cut from a request: enough to know it again and to answer it. A tuple, because it costs a third."""

    key: ServerKey
    """As ``transaction.server_key`` would make it."""
    vias: bytes
    """All of them, the top one with what the receiver saw."""
    from_: bytes
    to: bytes
    call_id: bytes
    cseq: bytes

    def answer(self, secret: bytes) -> bytes:
        """503 with Retry-After; b"" if a header holds what may not be echoed."""
        mixed = crc32(self.call_id)
        retry = LEAST_RETRY + mixed % (MOST_RETRY - LEAST_RETRY + 1)
        to = self.to
        if not _HAS_TAG.search(to):
            # The same for every retransmission without keeping state (RFC 3261 section 8.2.7).
            to += b";tag=%08x" % crc32(self.from_ + b"\0" + self.cseq, crc32(secret, mixed))
        octets = (
            b"SIP/2.0 503 Service Unavailable\r\nVia: %b\r\nFrom: %b\r\nTo: %b\r\nCall-ID: %b\r\nCSeq: %b\r\n"
            b"Retry-After: %d\r\nContent-Length: 0\r\n\r\n"
        ) % (self.vias, self.from_, to, self.call_id, self.cseq, retry)
        return b"" if _CONTROL.search(octets) else octets


def is_refusable(data: bytes) -> bool:
    """True for a new request of a kind that may be refused unread; False for answers, REGISTER and all else."""
    return data.startswith(_REFUSABLE)


def glimpse(data: bytes, source: HostPort) -> Glimpse | None:
    """Cut from a refusable request what an answer needs; None if that cannot be had at a glance."""
    found = _echoed(data)
    if found is None:
        return None
    vias, from_, to, call_id, cseq = found
    method = data[: data.index(b" ")].decode("ascii")
    plain = _PLAIN_VIA.fullmatch(vias[0]) if len(vias) == 1 else None
    if plain is not None:
        host, port, branch = plain.groups()
        if port is not None and int(port) > 65535:
            return None
        key = (source, branch.decode(), host.decode().lower(), None if port is None else int(port), method)
        seen = b"%b=%d;received=%b" % (vias[0], source[1], source[0].encode())
        return Glimpse(key, seen, from_, to, call_id, cseq)
    try:
        top, *others = split_commas(vias[0].decode("utf-8", "surrogateescape"))
        via = Via.parse(top)
    except RemoteProtocolError:
        return None
    if not via.has_cookie:
        return None
    text = "\r\nVia: ".join([str(via.received_from(*source)), *others]).encode("utf-8", "surrogateescape")
    key = (source, via.branch, via.host, via.port, method)
    return Glimpse(key, b"\r\nVia: ".join([text, *vias[1:]]), from_, to, call_id, cseq)


def _echoed(data: bytes) -> tuple[list[bytes], bytes, bytes, bytes, bytes] | None:
    """Vias, From, To, Call-ID and CSeq as they stand there; None if a line is folded, one is missing or there twice."""
    found: dict[bytes, bytes] = {}
    vias: list[bytes] = []
    head = data[: data.find(b"\r\n\r\n")]
    lines = head.split(b"\r\n")
    if not head.count(b"\r") == head.count(b"\n") == len(lines) - 1:
        return None
    for line in lines[1:]:
        written, colon, value = line.partition(b":")
        name = _ECHOED.get(written)
        if name is None:
            if not colon or written[:1] in b" \t":
                return None
            name = _ECHOED.get(written.rstrip(b" \t").lower()) if len(written) < 16 else None
        if name == b"v":
            vias.append(value.strip(b" \t"))
        elif name is not None:
            if name in found:
                return None
            found[name] = value.strip(b" \t")
    if not vias or len(found) != 4:
        return None
    return vias, found[b"f"], found[b"t"], found[b"i"], found[b"cseq"]


class Refused:
    """Transactions refused within the last ``lifetime`` seconds or a little more; a bounded number of them."""

    def __init__(self, lifetime: float, most: int) -> None:
        self._lifetime = lifetime
        self._most = most // 2
        self._new: set[int] = set()
        self._old: set[int] = set()
        self._turned = 0.0

    def add(self, key: ServerKey, now: float) -> bool:
        """Remember; False if no more can be, so that no answer may be given."""
        self._turn(now)
        if len(self._new) >= self._most:
            return False
        self._new.add(hash(key))
        return True

    def has(self, key: ServerKey, now: float) -> bool:
        """True if the transaction was refused."""
        if not self._new and not self._old:
            return False
        self._turn(now)
        mark = hash(key)
        return mark in self._new or mark in self._old

    def _turn(self, now: float) -> None:
        """Forget what is old enough: two sets, each for one lifetime, so that nothing needs a timer."""
        if now - self._turned >= self._lifetime:
            self._old = self._new if now - self._turned < 2 * self._lifetime else set()
            self._new = set()
            self._turned = now


class Overload:
    """The refusals of one session; they hold for ``lifetime`` seconds, at most ``most`` of them.

    For as long after a restart (``restarted``, None: this is the first life) nothing is refused, only dropped: what comes
    may be the retransmission of a request that the process before took, and a no would be a false one (I3).
    """

    def __init__(self, secret: bytes, lifetime: float, most: int, restarted: float | None = None) -> None:
        self._secret = secret
        self._silent_until = None if restarted is None else restarted + lifetime
        self._refused = Refused(lifetime, most)

    def has_refused(self, key: ServerKey, now: float) -> bool:
        """True if the request was told no a moment ago."""
        return self._refused.has(key, now)

    def refuse(self, data: bytes, address: HostPort, now: float, taken: ServerTransactions) -> bytes | None:
        """Octets of the refusal, b"" for silence; None if the datagram has to be taken."""
        if not is_refusable(data):
            return None
        seen = glimpse(data, address)
        if seen is None:
            return b""
        if taken.by_key(seen.key) is not None:
            return None  # a retransmission of what was taken
        if self._silent_until is not None:
            if now < self._silent_until:
                return b""
            self._silent_until = None
        if self._refused.has(seen.key, now) or self._refused.add(seen.key, now):
            return seen.answer(self._secret)
        return b""
