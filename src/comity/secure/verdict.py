"""The verdict: what a client or a tool may say about an object, in one value.

Place on the path: the end of ``verifying.verify``; shown by ``comity verify``, the chat page and ``listen``. The rule its
readers must keep: only ``VerdictKind.VALID`` may be shown as signed, and what is shown is ``content``, the very
octets the signature covers, never the object around them (reliability.md T8). The verdict stands outside the
body, so nothing in a body can draw it (M-20).
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
    """Encrypted and not opened."""


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
    """The (first) signer's certificate, DER, trusted or not, where the signature holds; for "trust this one?"."""

    @property
    def is_valid(self) -> bool:
        """True if it may be shown as signed by ``signer``."""
        return self.verdict is VerdictKind.VALID

    @property
    def refusal(self) -> Reason | None:
        """What to tell the sender if the recipient's policy refuses such an object (table T8); None: nothing to refuse."""
        return _REFUSALS.get(self.verdict)

    def to_json(self) -> dict[str, str]:
        """The keys of ``comity verify --json`` (design.md section 4)."""
        return {
            "verdict": self.verdict.value,
            "signer": self.signer,
            "from": self.from_,
            "sha256": self.sha256,
            "reason": self.reason,
        }


_REFUSALS = {
    VerdictKind.BAD_SIGNATURE: Reason.SIGNATURE,
    VerdictKind.SIGNED_BY_OTHER: Reason.SIGNATURE,
    VerdictKind.UNTRUSTED: Reason.SIGNATURE,
    VerdictKind.STALE: Reason.TIMESTAMP,
    VerdictKind.FUTURE: Reason.TIMESTAMP,
    VerdictKind.NO_FRESHNESS: Reason.TIMESTAMP,
    VerdictKind.MALFORMED: Reason.SYNTAX,
}
