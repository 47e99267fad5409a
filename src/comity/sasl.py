"""SASL mechanisms, server and client side: SCRAM with and without channel binding, PLAIN (RFC 5802, 7677, 4616).

Place on the path: step 3 of every binding that signs in by SASL, before there is a message. Pure: octets and secrets in,
octets and outcomes out.
Channel binding is tls-server-end-point only (design.md section 3): Python's ssl offers no exporter.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import precis_i18n

CHANNEL_BINDING: Final = "tls-server-end-point"
#: Mechanism name to hash name, best first; -PLUS stands before its plain form when TLS gives the data for it.
SCRAM_HASHES: Final = {"SCRAM-SHA-512": "sha-512", "SCRAM-SHA-256": "sha-256", "SCRAM-SHA-1": "sha-1"}
_HASHLIB: Final = {"sha-512": "sha512", "sha-256": "sha256", "sha-1": "sha1"}
#: A client that is shown fewer refuses (T13): an attacker could ask for one iteration and guess at leisure.
MIN_ITERATIONS: Final = 4096
MAX_ITERATIONS: Final = 10_000_000
_NONCE = re.compile(r"[\x21-\x2b\x2d-\x7e]{1,256}")
_SASLNAME_BAD = re.compile("=(?!2C|3D)|,")
_OPAQUE = precis_i18n.get_profile("OpaqueString")


@dataclass(frozen=True, slots=True)
class ScramSecret:
    """What proves a password for one hash (RFC 5802 section 3): salt, count and the two keys."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes


class SaslFailure(Exception):
    """A step failed; ``condition`` is the child of ``<failure>`` (RFC 6120 section 6.5)."""

    def __init__(self, condition: str, text: str = "") -> None:
        self.condition = condition
        self.text = text
        super().__init__(condition)


def decode_base64(text: str) -> bytes:
    """Decode the content of ``auth`` or ``response``; "=" is the empty octet string (RFC 6120 section 6.4.2)."""
    if text == "=":
        return b""
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError):
        raise SaslFailure("incorrect-encoding") from None


def prepare_password(password: str) -> bytes:
    """Normalise a password (RFC 8265 OpaqueString); one that the profile forbids is used as it is."""
    try:
        return str(_OPAQUE.enforce(password)).encode("utf-8")
    except (UnicodeError, ValueError):
        return password.encode("utf-8", "surrogatepass")


def derive_secret(password: str, hash_name: str, salt: bytes, iterations: int) -> ScramSecret:
    """Compute the keys a server keeps (RFC 5802 section 3); about 20 ms for 100,000 iterations."""
    name = _HASHLIB[hash_name]
    salted = hashlib.pbkdf2_hmac(name, prepare_password(password), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", name)
    return ScramSecret(
        salt, iterations, hashlib.new(name, client_key).digest(), hmac.digest(salted, b"Server Key", name)
    )


def check_password(password: str, hash_name: str, secret: ScramSecret) -> bool:
    """Compare a password with a secret in constant time; as slow as ``derive_secret``."""
    derived = derive_secret(password, hash_name, secret.salt, secret.iterations)
    return hmac.compare_digest(derived.stored_key, secret.stored_key)


def dummy_secret(username: str, hash_name: str, key: bytes, iterations: int) -> ScramSecret:
    """A secret for an account that does not exist: the same every time, and no password fits (X-33)."""
    name = _HASHLIB[hash_name]
    seed = hmac.digest(key, b"salt\0" + hash_name.encode() + b"\0" + username.encode("utf-8", "replace"), "sha256")
    size = hashlib.new(name).digest_size
    stretched = hashlib.pbkdf2_hmac("sha256", seed, b"keys", 1, 2 * size)
    return ScramSecret(seed[:16], iterations, stretched[:size], stretched[size:])


def mechanisms_for(
    hashes: Sequence[str], end_point: bytes | None, is_plain_allowed: bool, offered: Sequence[str] | None = None
) -> list[str]:
    """Mechanism names to offer, best first and PLAIN last (RFC 6120 section 13.8)."""
    names: list[str] = []
    for mechanism, hash_name in SCRAM_HASHES.items():
        if hash_name in hashes and end_point:
            names.append(mechanism + "-PLUS")
    names += [mechanism for mechanism, hash_name in SCRAM_HASHES.items() if hash_name in hashes]
    if is_plain_allowed:
        names.append("PLAIN")
    return names if offered is None else [name for name in names if name in offered]


@dataclass(frozen=True, slots=True)
class PlainResponse:
    """What a PLAIN client said."""

    authzid: str
    username: str
    password: str


def read_plain(data: bytes) -> PlainResponse:
    """Read ``authzid NUL authcid NUL password`` (RFC 4616 section 2)."""
    parts = data.split(b"\0")
    if len(parts) != 3 or not parts[1] or not parts[2]:
        raise SaslFailure("malformed-request")
    try:
        authzid, username, password = (part.decode("utf-8") for part in parts)
    except UnicodeDecodeError:
        raise SaslFailure("malformed-request") from None
    return PlainResponse(authzid, username, password)


def write_plain(username: str, password: str) -> bytes:
    """The PLAIN response without authzid."""
    return b"\0" + username.encode("utf-8") + b"\0" + password.encode("utf-8")


def _unescape(name: str) -> str:
    if _SASLNAME_BAD.search(name):
        raise SaslFailure("malformed-request")
    return name.replace("=2C", ",").replace("=3D", "=")


def _escape(name: str) -> str:
    return name.replace("=", "=3D").replace(",", "=2C")


def _fields(text: str, *wanted: str) -> list[str]:
    """Values of the attributes ``wanted`` that must open ``text`` in this order (RFC 5802 section 7)."""
    parts = text.split(",")
    values: list[str] = []
    for part, key in zip(parts, wanted, strict=False):
        if not part.startswith(key + "="):
            raise SaslFailure("malformed-request")
        values.append(part[2:])
    if len(values) != len(wanted):
        raise SaslFailure("malformed-request")
    return values


def _xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


class ScramServer:
    """One SCRAM exchange on the server: ``first`` → ``challenge`` → ``final``.

    Args:
        mechanism: as chosen by the client.
        end_point: tls-server-end-point data of the connection, None without TLS.
        offers_plus: whether a -PLUS variant was offered: then "y" is a downgrade (RFC 5802 section 6).
    """

    def __init__(self, mechanism: str, end_point: bytes | None, offers_plus: bool) -> None:
        self.is_plus = mechanism.endswith("-PLUS")
        self.hash_name = SCRAM_HASHES[mechanism.removesuffix("-PLUS")]
        self._end_point = end_point
        self._offers_plus = offers_plus
        self._gs2 = b""
        self._first_bare = b""
        self._nonce = ""
        self._server_first = b""
        self._secret: ScramSecret | None = None
        self.username = ""
        self.authzid = ""

    def first(self, data: bytes) -> None:
        """Read the client's first message; sets ``username`` and ``authzid``. Raises SaslFailure."""
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            raise SaslFailure("malformed-request") from None
        flag, comma, rest = text.partition(",")
        authzid, comma2, bare = rest.partition(",")
        if not comma or not comma2:
            raise SaslFailure("malformed-request")
        self._check_flag(flag)
        if authzid:
            if not authzid.startswith("a="):
                raise SaslFailure("malformed-request")
            self.authzid = _unescape(authzid[2:])
        username, nonce = _fields(bare, "n", "r")
        if not username or not _NONCE.fullmatch(nonce):
            raise SaslFailure("malformed-request")
        self.username = _unescape(username)
        self._gs2 = f"{flag},{authzid},".encode()
        self._first_bare = bare.encode("utf-8")
        self._nonce = nonce

    def _check_flag(self, flag: str) -> None:
        if flag.startswith("p="):
            # another binding type than the one we can check is no proof at all.
            if not self.is_plus or flag[2:] != CHANNEL_BINDING:
                raise SaslFailure("not-authorized")
        elif flag == "y":
            if self._offers_plus or self.is_plus:
                raise SaslFailure("not-authorized", "channel binding was offered: somebody removed it on the way")
        elif flag != "n":
            raise SaslFailure("malformed-request")
        elif self.is_plus:
            raise SaslFailure("not-authorized")

    def challenge(self, secret: ScramSecret, nonce: str) -> bytes:
        """Our first message. ``nonce``: fresh, printable, without commas."""
        self._secret = secret
        self._nonce += nonce
        salt = base64.b64encode(secret.salt).decode("ascii")
        self._server_first = f"r={self._nonce},s={salt},i={secret.iterations}".encode()
        return self._server_first

    def final(self, data: bytes, is_known: bool) -> bytes:
        """Check the proof; returns our signature for ``success``. Raises SaslFailure.

        The same work is done for an account that does not exist (``is_known`` False), and then it fails."""
        assert self._secret is not None
        head, comma, proof_text = data.rpartition(b",p=")
        if not comma:
            raise SaslFailure("malformed-request")
        try:
            binding, nonce = _fields(head.decode("utf-8"), "c", "r")
        except UnicodeDecodeError:
            raise SaslFailure("malformed-request") from None
        name = _HASHLIB[self.hash_name]
        proof = decode_base64(proof_text.decode("ascii", "replace"))
        if len(proof) != hashlib.new(name).digest_size:
            raise SaslFailure("not-authorized")
        expected = self._gs2 + (self._end_point or b"" if self.is_plus else b"")
        is_bound = hmac.compare_digest(decode_base64(binding), expected)
        if self.is_plus and not self._end_point:
            is_bound = False
        is_fresh = hmac.compare_digest(nonce.encode(), self._nonce.encode())
        authenticated = self._first_bare + b"," + self._server_first + b"," + head
        signature = hmac.digest(self._secret.stored_key, authenticated, name)
        stored = hashlib.new(name, _xor(proof, signature)).digest()
        is_proved = hmac.compare_digest(stored, self._secret.stored_key)
        if not (is_bound and is_fresh and is_proved and is_known):
            raise SaslFailure("not-authorized")
        return b"v=" + base64.b64encode(hmac.digest(self._secret.server_key, authenticated, name))


class ScramClient:
    """One SCRAM exchange on the client: ``first`` → ``final`` → ``verify``.

    Args:
        mechanism: chosen from the server's list.
        end_point: tls-server-end-point data of the *server's* certificate, None without TLS.
        server_offers_plus: whether the server offered any -PLUS; if not and we could, we say "y".
    """

    def __init__(
        self,
        mechanism: str,
        username: str,
        password: str,
        nonce: str,
        *,
        end_point: bytes | None,
        server_offers_plus: bool,
    ) -> None:
        self._is_plus = mechanism.endswith("-PLUS")
        self._hash = SCRAM_HASHES[mechanism.removesuffix("-PLUS")]
        self._password = password
        self._end_point = end_point
        if self._is_plus:
            flag = f"p={CHANNEL_BINDING}"
        else:
            flag = "y" if end_point and not server_offers_plus else "n"
        self._gs2 = f"{flag},,".encode()
        self._nonce = nonce
        self._first_bare = f"n={_escape(username)},r={nonce}".encode()
        self._server_signature = b""

    def first(self) -> bytes:
        """Our first message."""
        return self._gs2 + self._first_bare

    def final(self, challenge: bytes) -> bytes:
        """Answer the server's challenge. Raises SaslFailure if it is not to be trusted."""
        try:
            nonce, salt_text, count_text = _fields(challenge.decode("utf-8"), "r", "s", "i")
        except UnicodeDecodeError:
            raise SaslFailure("malformed-request") from None
        if not nonce.startswith(self._nonce) or len(nonce) <= len(self._nonce):
            raise SaslFailure("aborted", "the server's nonce does not contain ours")
        if not count_text.isascii() or not count_text.isdigit() or len(count_text) > 9:
            raise SaslFailure("malformed-request")
        iterations = int(count_text)
        if not MIN_ITERATIONS <= iterations <= MAX_ITERATIONS:
            raise SaslFailure("aborted", "the server asks for an iteration count that is not safe")
        name = _HASHLIB[self._hash]
        salted = hashlib.pbkdf2_hmac(name, prepare_password(self._password), decode_base64(salt_text), iterations)
        client_key = hmac.digest(salted, b"Client Key", name)
        bound = self._gs2 + ((self._end_point or b"") if self._is_plus else b"")
        head = b"c=" + base64.b64encode(bound) + b",r=" + nonce.encode()
        authenticated = self._first_bare + b"," + challenge + b"," + head
        signature = hmac.digest(hashlib.new(name, client_key).digest(), authenticated, name)
        self._server_signature = hmac.digest(hmac.digest(salted, b"Server Key", name), authenticated, name)
        return head + b",p=" + base64.b64encode(_xor(client_key, signature))

    def verify(self, success: bytes) -> None:
        """Check that the server knows the password too. Raises SaslFailure."""
        value = success.partition(b",")[0].removeprefix(b"v=")
        given = decode_base64(value.decode("ascii", "replace"))
        if not self._server_signature or not hmac.compare_digest(given, self._server_signature):
            raise SaslFailure("aborted", "the server did not prove that it knows the password")


def choose_mechanism(offered: Sequence[str], end_point: bytes | None, is_plain_allowed: bool) -> str | None:
    """The best mechanism both sides have, or None."""
    mine = mechanisms_for(list(SCRAM_HASHES.values()), end_point, is_plain_allowed)
    return next((name for name in mine if name in offered), None)


def secret_for(secrets: Mapping[str, ScramSecret] | None, hash_name: str) -> ScramSecret | None:
    """The account's secret for one hash, None if the account or that secret is missing."""
    return None if secrets is None else secrets.get(hash_name)
