"""The door to pysequoia: whether it is there, how to ask it, and what it reads in a packet, as values.

Place on the path: below every other ``openpgp*.py``. The base install has no pysequoia (``pip install comity[pgp]``); all import
without it. The rule its readers must keep: everything of pysequoia is called inside ``ask``, attributes too. It answers
with RuntimeError whatever is wrong, even when asked for the number of a hash it does not know; and a panic of Rust is no
Exception at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from comity.errors import SecurityError
from comity.secure import openpgp_packets as wire
from comity.secure.evidence import UnknownAlgorithm

try:
    from pysequoia.packet import Packet as SequoiaPacket
    from pysequoia.packet import PacketPile
except ImportError:  # the base install
    is_available = False
else:
    is_available = True

ResultT = TypeVar("ResultT")


class Refused(SecurityError):
    """pysequoia does not take it; its own words are for developers only (they hold a backtrace)."""

    def __init__(self) -> None:
        super().__init__("OpenPGP data that cannot be used")


class NotInstalled(UnknownAlgorithm):
    """The extra ``pgp`` is missing: nothing can be said of any OpenPGP object."""

    def __init__(self) -> None:
        super().__init__("OpenPGP is not installed here (pip install comity[pgp])")


def ask(question: Callable[[], ResultT]) -> ResultT:
    """Call into pysequoia.

    Raises:
        Refused: it raised, or panicked.
        NotInstalled: there is no pysequoia.
    """
    if not is_available:
        raise NotInstalled
    try:
        return question()
    except BaseException as error:  # the one last resort around a library whose exceptions have no common class
        # A Rust panic is pyo3_runtime.PanicException, which is no Exception and cannot be imported; Ctrl-C goes on.
        if isinstance(error, Exception) or type(error).__module__ == "pyo3_runtime":
            raise Refused from error
        raise


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What stands in the packet of a key."""

    fingerprint: str
    key_id: str
    created: datetime
    algorithm: str
    """Lower case, as pysequoia calls it: "eddsa", "ed25519", "ecdsa", "rsaencryptsign" …"""


@dataclass(frozen=True, slots=True)
class SignatureFacts:
    """What a signature says of itself, unchecked."""

    version: int
    kind: str
    """As pysequoia calls it: "Binary", "Text", "SubkeyBinding", "KeyRevocation" …; "" for one it does not know."""
    digest: str
    """As micalg has it: "sha512"; "" for one it does not know."""
    issuer: str
    """Fingerprint, or key ID, of the key that made it."""
    created: datetime | None
    expires: datetime | None
    period: timedelta | None
    """How long the key it binds is valid, from that key's creation."""
    is_for_encryption: bool
    """True if the key it binds may be encrypted to."""


def key_facts(packet: wire.Packet) -> KeyFacts:
    """Read the packet of a key. Raises Refused."""

    def read() -> KeyFacts:
        seen = _read(packet)
        if seen.key_created is None or not seen.fingerprint or not seen.key_id:
            raise ValueError("no key")
        return KeyFacts(
            seen.fingerprint, seen.key_id, seen.key_created.astimezone(UTC), _name(seen.key_algorithm).lower()
        )

    return ask(read)


def signature_facts(packet: wire.Packet) -> SignatureFacts:
    """Read the packet of a signature. Raises Refused."""

    def read() -> SignatureFacts:
        seen = _read(packet)
        if seen.signature_version is None:
            raise ValueError("no signature")
        flags = seen.key_flags
        return SignatureFacts(
            seen.signature_version,
            _known(lambda: _name(seen.signature_type)),
            _known(lambda: _DIGESTS.get(_name(seen.hash_algorithm), "")),
            seen.issuer_fingerprint or seen.issuer_key_id or "",
            _utc(seen.signature_created),
            _utc(seen.signature_expiration_time),
            seen.key_validity_period,
            flags is not None and (flags.transport_encryption or flags.storage_encryption),
        )

    return ask(read)


_DIGESTS = {
    "MD5": "md5",
    "SHA1": "sha1",
    "RipeMD": "ripemd160",
    "SHA224": "sha224",
    "SHA256": "sha256",
    "SHA384": "sha384",
    "SHA512": "sha512",
    "SHA3_256": "sha3-256",
    "SHA3_512": "sha3-512",
}


def _read(packet: wire.Packet) -> SequoiaPacket:
    (seen,) = PacketPile.from_bytes(packet.raw)
    found: SequoiaPacket = seen
    return found


def _known(read: Callable[[], str]) -> str:
    """The name of a number, "" if pysequoia has none for it."""
    try:
        return ask(read)
    except Refused:
        return ""


def _name(member: object) -> str:
    """The name of an enumeration's member; these are no ``enum.Enum``."""
    return repr(member).rpartition(".")[2]


def _utc(stamp: datetime | None) -> datetime | None:
    return None if stamp is None else stamp.astimezone(UTC)
