"""Digest authentication, both sides (RFC 3261 section 22.4, RFC 8760, RFC 7616).

Place on the path: beside step 3; ``binding.py`` challenges and checks with ``DigestServer``, ``comity.client``
answers with ``DigestClient``. Passwords never come in here on the server's side: HA1 values do.

A nonce is a time and an HMAC over time and source flow, so nothing is kept for one that nobody used; of those used,
only the highest nc. A nonce of the process before this one still serves a MESSAGE, so that a phone's datagram, sent
again over a restart, is the same request and not a second one under a new CSeq (F-K4). Counts must rise strictly, and ``qop`` is required: without it nothing rises (S-22, S-23). Only
"auth" is offered, since stock phones stumble over a list; "auth-int" is taken from who uses it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from enum import Enum

from comity.bindings.sip.headers import AuthParams, quoted
from comity.bindings.sip.message import SipResponse
from comity.bindings.sip.uri import SipUri, parse_uri
from comity.errors import RemoteProtocolError

#: What we can compute, by name in the header (RFC 8760 section 2.3: preferred first).
ALGORITHMS: dict[str, Callable[[bytes], hashlib._Hash]] = {
    "SHA-256": hashlib.sha256,
    "MD5": lambda data: hashlib.md5(data, usedforsecurity=False),
}
_DUMMY_HA1 = {"SHA-256": "0" * 64, "MD5": "0" * 32}
_NC = re.compile(r"[0-9a-fA-F]{8}")
#: A nonce is guessed within five minutes or not at all; and a challenge has to fit into a small phone's request (S-28).
_MAC_LENGTH = 8


def hash_hex(algorithm: str, text: str) -> str:
    """Lower-case hex of the digest algorithm over ``text`` (surrogate escapes as the octets they were)."""
    return ALGORITHMS[algorithm](text.encode("utf-8", "surrogateescape")).hexdigest()


def ha1(algorithm: str, username: str, realm: str, password: str) -> str:
    """H(user:realm:password), a password equivalent (RFC 7616 section 3.4.2)."""
    return hash_hex(algorithm, f"{username}:{realm}:{password}")


def response_value(algorithm: str, ha1_hex: str, method: str, params: Mapping[str, str], body: bytes) -> str:
    """The ``response`` that proves HA1 for these parameters (RFC 7616 section 3.4.1)."""
    a2 = f"{method}:{params.get('uri', '')}"
    if params.get("qop") == "auth-int":
        a2 += f":{ALGORITHMS[algorithm](body).hexdigest()}"
    middle = ":".join(params.get(name, "") for name in ("nonce", "nc", "cnonce", "qop"))
    return hash_hex(algorithm, f"{ha1_hex}:{middle}:{hash_hex(algorithm, a2)}")


class Verdict(Enum):
    """What credentials turned out to be."""

    ACCEPTED = "accepted"
    STALE = "stale"
    """The password is right, the nonce is not (any more): challenge again with stale=true."""
    REPLAYED = "replayed"
    """The password is right, the nc was used: challenge again."""
    REFUSED = "refused"
    """Wrong password, unknown user, or an algorithm that was not offered."""


_TIME_LENGTH, _SERIAL_LENGTH = 5, 2
_STAMP_LENGTH = _TIME_LENGTH + _SERIAL_LENGTH
"""Milliseconds (34 years of them) and serial."""


class DigestServer:
    """Makes challenges and checks credentials."""

    def __init__(
        self, key: bytes, *, is_md5_offered: bool = True, lifetime: float = 300.0, most_nonces: int = 100_000
    ) -> None:
        self.algorithms = tuple(name for name in ALGORITHMS if name != "MD5" or is_md5_offered)
        self._key = key
        self._lifetime = lifetime
        self._most_nonces = most_nonces
        self._counts: OrderedDict[str, int] = OrderedDict()
        self._serial = 0
        self._floor = -1
        """Issue time (ms) up to which used nonces were forgotten; such ones are stale, so that none can come back."""
        self._since = 0
        """Issue time (ms) before which another process gave them; which of its counts were used is not known."""

    def go_on(self, key: bytes, now: float) -> None:
        """Take a key that outlives the process; ``now`` has to mean the same in each of them.

        A count used before is not remembered. What was captured on its way could therefore be sent again from the
        same address for the rest of a nonce's life: harmless for a MESSAGE, whose repeat is recognised; everything
        else is challenged anew.
        """
        self._key = key
        self._since = int(now * 1000)

    def challenges(self, realm: str, flow: str, now: float, *, is_stale: bool = False) -> list[str]:
        """WWW-Authenticate values, preferred algorithm first (RFC 8760 section 2.4)."""
        # The serial keeps apart nonces of one millisecond: users behind one flow each count their own nc.
        self._serial = (self._serial + 1) & 0xFFFF
        stamp = int(now * 1000).to_bytes(_TIME_LENGTH, "big") + self._serial.to_bytes(_SERIAL_LENGTH, "big")
        nonce = urlsafe_b64encode(stamp + self._mac(stamp, flow)).rstrip(b"=").decode("ascii")
        stale = ",stale=true" if is_stale else ""
        return [
            f'Digest realm={quoted(realm)},nonce="{nonce}",qop="auth",algorithm={name}{stale}'
            for name in self.algorithms
        ]

    def select(self, credentials: Sequence[AuthParams], realm: str) -> AuthParams | None:
        """The Digest credentials meant for us, None if there are none (unknown schemes and realms: S-21)."""
        for given in credentials:
            if given.scheme == "digest" and given.get("realm") == realm and given.get("username"):
                return given
        return None

    def check(
        self,
        given: AuthParams,
        *,
        method: str,
        request_uri: str,
        body: bytes,
        ha1_values: Mapping[str, str] | None,
        flow: str,
        now: float,
    ) -> Verdict:
        """Check credentials; ``ha1_values`` is None for an unknown user, for whom the same work is done.

        The values are by algorithm, those of other spellings of the user name by ``ALGORITHM USERNAME``."""
        algorithm = given.get("algorithm").upper() or "MD5"
        is_offered = algorithm in self.algorithms
        if not is_offered:
            algorithm = self.algorithms[0]
        values = ha1_values or {}
        known = values.get(f"{algorithm} {given.get('username')}") or values.get(algorithm)
        expected = response_value(algorithm, known or _DUMMY_HA1[algorithm], method, given.params, body)
        is_right = hmac.compare_digest(expected.encode(), given.get("response").lower().encode("utf-8", "replace"))
        if not (is_right and is_offered and known) or not _same_resource(given.get("uri"), request_uri):
            return Verdict.REFUSED
        nc = given.get("nc")
        if given.get("qop") not in ("auth", "auth-int") or not given.get("cnonce") or not _NC.fullmatch(nc):
            return Verdict.STALE
        return self._count(given.get("nonce"), int(nc, 16), flow, now, must_be_ours=method != "MESSAGE")

    def _count(self, nonce: str, nc: int, flow: str, now: float, *, must_be_ours: bool) -> Verdict:
        issued = self._issued(nonce, flow)
        if issued is not None and must_be_ours and issued < self._since:
            return Verdict.STALE
        if issued is None or issued <= self._floor or not 0 <= now * 1000 - issued <= self._lifetime * 1000:
            return Verdict.STALE
        if nc <= self._counts.get(nonce, 0):
            return Verdict.REPLAYED
        self._counts[nonce] = nc
        while len(self._counts) > self._most_nonces or (self._counts and self._is_over(next(iter(self._counts)), now)):
            oldest, _ = self._counts.popitem(last=False)
            self._floor = max(self._floor, _stamp(oldest))
        return Verdict.ACCEPTED

    def _is_over(self, nonce: str, now: float) -> bool:
        return now * 1000 - _stamp(nonce) > self._lifetime * 1000

    def _issued(self, nonce: str, flow: str) -> int | None:
        """Issue time in ms of a nonce of ours for this flow, else None."""
        try:
            raw = urlsafe_b64decode(nonce + "==")
        except ValueError:
            return None
        if len(raw) != _STAMP_LENGTH + _MAC_LENGTH or urlsafe_b64encode(raw).rstrip(b"=").decode("ascii") != nonce:
            return None
        if not hmac.compare_digest(raw[_STAMP_LENGTH:], self._mac(raw[:_STAMP_LENGTH], flow)):
            return None
        return int.from_bytes(raw[:_TIME_LENGTH], "big")

    def _mac(self, stamp: bytes, flow: str) -> bytes:
        return hmac.digest(self._key, stamp + flow.encode("utf-8"), "sha256")[:_MAC_LENGTH]


def _stamp(nonce: str) -> int:
    return int.from_bytes(urlsafe_b64decode(nonce + "==")[:_TIME_LENGTH], "big")


def _same_resource(digest_uri: str, request_uri: str) -> bool:
    """True if both name the same user at the same host; parameters may differ (RFC 3261 section 22.4 item 6)."""
    if digest_uri == request_uri:
        return True
    try:
        one, other = parse_uri(digest_uri), parse_uri(request_uri)
    except RemoteProtocolError:
        return False
    return isinstance(one, SipUri) and isinstance(other, SipUri) and one.aor == other.aor


class DigestClient:
    """Answers the challenges of one peer, in one realm, and of nobody else (S-24)."""

    def __init__(self, username: str, password: str, *, realm: str, peer: str, random: Callable[[int], bytes]) -> None:
        self._username = username
        self._password = password
        self._realm = realm
        self._peer = peer
        self._random = random
        self._challenge: AuthParams | None = None
        self._header = "Authorization"
        self._ha1: dict[str, str] = {}
        self._nc = 0
        self._is_fresh = False
        """True until credentials for the present challenge were let through."""

    def take_challenge(self, response: SipResponse, peer: str) -> bool:
        """Take the challenge of a 401 or 407; False if it is not to be answered.

        That is: another peer or realm, no algorithm we know, or the credentials just sent were refused (the server
        gives a new nonce without stale=true).
        """
        if peer != self._peer or response.status_code not in (401, 407):
            return False
        name = "www-authenticate" if response.status_code == 401 else "proxy-authenticate"
        for challenge in response.credentials(name):
            algorithm = challenge.get("algorithm").upper() or "MD5"
            qops = {text.strip() for text in challenge.get("qop").split(",")}
            if challenge.scheme != "digest" or algorithm not in ALGORITHMS or "auth" not in qops:
                continue
            if challenge.get("realm") != self._realm:
                continue
            is_stale = challenge.get("stale").lower() == "true"
            if self._challenge is not None and not is_stale and self._is_fresh:
                return False
            self._challenge, self._nc, self._is_fresh = challenge, 0, True
            self._header = "Authorization" if response.status_code == 401 else "Proxy-Authorization"
            return True
        return False

    @property
    def nonce(self) -> str:
        """Of the present challenge, "" before any."""
        return "" if self._challenge is None else self._challenge.get("nonce")

    def accepted(self) -> None:
        """A request with our credentials was let through: a later challenge is a new one, not a refusal."""
        self._is_fresh = False

    def authorize(self, method: str, uri: str, body: bytes) -> tuple[str, str] | None:
        """The header (name, value) for the next request, None before any challenge."""
        challenge = self._challenge
        if challenge is None:
            return None
        self._nc += 1
        algorithm = challenge.get("algorithm").upper() or "MD5"
        qops = {text.strip() for text in challenge.get("qop").split(",")}
        params = {
            "username": self._username,
            "realm": self._realm,
            "nonce": challenge.get("nonce"),
            "uri": uri,
            "qop": "auth-int" if "auth-int" in qops else "auth",
            "nc": f"{self._nc:08x}",
            "cnonce": self._random(8).hex(),
        }
        if algorithm not in self._ha1:
            self._ha1[algorithm] = ha1(algorithm, self._username, self._realm, self._password)
        params["response"] = response_value(algorithm, self._ha1[algorithm], method, params, body)
        plain = ("qop", "nc")
        fields = [f"{name}={value if name in plain else quoted(value)}" for name, value in params.items()]
        fields.append(f"algorithm={algorithm}")
        if challenge.get("opaque"):
            fields.append(f"opaque={quoted(challenge.get('opaque'))}")
        return self._header, "Digest " + ", ".join(fields)
