"""The verdict: what a client or a tool may say about an object, in one value.

Place on the path: the end of ``verifying.verify``; shown by ``comity verify``, the chat page and ``listen``. The rule its
readers must keep: only ``VerdictKind.VALID`` may be shown as signed, and what is shown is ``content``, the very
octets the signature covers (or what came out of them when they were opened), never the object around them
(reliability.md T8). The verdict stands outside the body, so nothing in a body can draw it (M-20).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from comity.cpim.operations import MimeObject, Reason


class VerdictKind(StrEnum):
    """The answers there are; the values are names the outside relies on (design.md section 4)."""

    VALID = "valid"
    """The whole message/cpim (or PIDF) is signed, by whom its From names, with a trusted certificate, in time."""
    VALID_WEAK = "valid-weak"
    """As valid, but SHA-1, MD5 or a small key: not proved (SEC-11)."""
    BAD_SIGNATURE = "bad-signature"
    SIGNED_BY_OTHER = "signed-by-other"
    """The signature holds, but the signer is not whom From names (SEED-52)."""
    UNTRUSTED = "untrusted"
    """The signature holds; the certificate is expired, revoked, of an unknown authority … (SEC-21)."""
    UNSIGNED = "unsigned"
    REPLAYED = "replayed"
    STALE = "stale"
    """DateTime is too old, or not greater than the last accepted from this signer."""
    FUTURE = "future"
    NO_FRESHNESS = "no-freshness"
    """Signed, but without DateTime: a replay could not be told (SEED-35)."""
    ENVELOPE_MISMATCH = "envelope-mismatch"
    """The protocol around the object names another sender (SEED-28)."""
    HEADERS_UNPROTECTED = "headers-unprotected"
    """The signature covers the content only, or no message/cpim at all (SEC-28)."""
    NOT_CHECKED = "not-checked"
    """Signed in a way that cannot be checked here."""
    TRANSLATED = "translated"
    """Made by a gateway from a native message; never given by ``verify``."""
    MALFORMED = "malformed"
    NOT_ADDRESSED = "not-addressed"
    """The recipient stands neither in To nor in cc."""
    AMBIGUOUS_SENDER = "ambiguous-sender"
    """Two From headers (FMT-38)."""
    ENCRYPTED = "encrypted"
    """Encrypted and not opened: no keys were given."""
    NO_KEY = "no-key"
    """Encrypted for others: none of the keys given is among its recipients."""
    CANNOT_DECRYPT = "cannot-decrypt"
    """Encrypted for us, and it does not open; never why (M-33)."""
    DECRYPTED_UNAUTHENTICATED = "decrypted-unauthenticated"
    """Encrypted so that a change goes unnoticed, and no signature inside proves that there was none (M-28): nothing of it
    is given, whether it opened or not."""
    CHANGED = "changed"
    """Signed with another key than the one kept for the sender (T33)."""


class IdentityMatch(StrEnum):
    """How the signer stands to the From of the object."""

    MATCH = "match"
    """A trusted certificate proves the From that is signed."""
    OTHER = "other"
    """A trusted certificate proves somebody else."""
    NONE = "none"
    """Nobody is proved: no signature, none that holds, or none that is trusted."""
    NOT_COVERED = "not-covered"
    """Somebody is proved, but From does not stand under the signature."""


class LayerKind(StrEnum):
    """What was found around the message."""

    SIGNED = "signed"
    ENCRYPTED = "encrypted"
    COMPRESSED = "compressed"
    UNPROTECTED = "unprotected"
    """A message/cpim whose headers no signature covers."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of protection, as far as it was opened."""

    kind: LayerKind
    text: str
    """For a person, escaped: "signed by im:alice@a.test", "encrypted, aes-128-gcm, authenticated"."""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known about an object's origin."""

    verdict: VerdictKind
    signer: str
    """Address that the signer's trusted certificate proves: the one equal to From if there is one, else its first; ""
    if nobody signed, the signature does not hold or the certificate is not trusted."""
    from_: str
    """From of the object, as a URI: the signed one where something is signed; "" if there is none."""
    sha256: str
    """Of the object's octets, lower-case hex: equal at every hop."""
    reason: str
    """One sentence for a person."""
    asserted_by: str = ""
    """Domain that vouches for From where no signature does (SEED-5)."""
    content: MimeObject | None = None
    """What may be shown under this verdict: the octets covered by the signature, or the unsigned object."""
    freshness: str = ""
    """RFC 3923 section 6.9's mark: "old timestamp", "future timestamp", "decreasing timestamp", or "delayed"; else ""."""
    certificate: bytes = b""
    """The signer's certificate, DER or OpenPGP packets, trusted or not, where the signature holds; for "trust this one?".
    Of several signers the one the verdict is about, else the first."""
    fingerprint: str = ""
    """Of that certificate, lower-case hex."""
    technology: str = ""
    """Of that signature: "smime" or "openpgp"; "" if none holds."""
    encryption_certificate: bytes = b""
    """What to encrypt answers to, DER; see ``Signer.encryption_certificate``."""
    capabilities: tuple[str, ...] = ()
    """Ciphers that the signer announced, preferred first (SEC-20)."""
    identity: IdentityMatch = IdentityMatch.NONE
    covered_sha256: str = ""
    """SHA-256 of exactly the octets under the innermost signature that holds; "" if none does. Under a signature around
    something encrypted that is the encrypted entity."""
    covered_octets: int = 0
    """How many they are."""
    covers_whole: bool = False
    """True if every octet of the message stands under a signature that holds; False if its headers stand outside."""
    layers: tuple[Layer, ...] = ()
    """Outermost first, so that the order of signing and encrypting is seen (SEC-16)."""

    @property
    def is_valid(self) -> bool:
        """True if it may be shown as signed by ``signer``."""
        return self.verdict is VerdictKind.VALID

    @property
    def is_encrypted(self) -> bool:
        """True if the message came encrypted, opened or not."""
        return any(layer.kind is LayerKind.ENCRYPTED for layer in self.layers)

    @property
    def refusal(self) -> Reason | None:
        """What to tell the sender if the recipient's policy refuses such an object (table T8); None: nothing to refuse."""
        return _REFUSALS.get(self.verdict)

    def to_json(self) -> dict[str, object]:
        """The keys of ``comity verify --json``: the first five of design.md section 4, the others added since."""
        return {
            "verdict": self.verdict.value,
            "signer": self.signer,
            "from": self.from_,
            "sha256": self.sha256,
            "reason": self.reason,
            "identity": self.identity.value,
            "fingerprint": self.fingerprint,
            "technology": self.technology,
            "asserted_by": self.asserted_by,
            "freshness": self.freshness,
            "encrypted": self.is_encrypted,
            "layers": [layer.text for layer in self.layers],
            "covered": {
                "sha256": self.covered_sha256,
                "octets": self.covered_octets,
                "whole": self.covers_whole,
            },
        }


_REFUSALS = {
    VerdictKind.BAD_SIGNATURE: Reason.SIGNATURE,
    VerdictKind.SIGNED_BY_OTHER: Reason.SIGNATURE,
    VerdictKind.UNTRUSTED: Reason.SIGNATURE,
    VerdictKind.CHANGED: Reason.SIGNATURE,
    VerdictKind.NO_KEY: Reason.DECRYPTION,
    VerdictKind.CANNOT_DECRYPT: Reason.DECRYPTION,
    VerdictKind.DECRYPTED_UNAUTHENTICATED: Reason.DECRYPTION,
    VerdictKind.STALE: Reason.TIMESTAMP,
    VerdictKind.FUTURE: Reason.TIMESTAMP,
    VerdictKind.NO_FRESHNESS: Reason.TIMESTAMP,
    VerdictKind.MALFORMED: Reason.SYNTAX,
}
