"""What S/MIME and OpenPGP hand to the verdict, in the same words: signers, opened objects, and why not.

Place on the path: between the two technologies (``cms*.py`` and ``chain.py``; ``openpgp*.py``) and ``verify.py``. The rule
its readers must keep: a ``Signer`` exists only for a signature that holds over exactly the octets asked about; whether
anybody trusts that signer is a field of it, never an exception.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from comity.errors import SecurityError
from comity.secure.identity import Name


class SignatureFailed(SecurityError):
    """A signature that does not hold, with the reason."""


class UnknownAlgorithm(SecurityError):
    """A signature by an algorithm that we cannot check: neither good nor bad."""


class UnknownSigner(SecurityError):
    """The signer's certificate is neither in the object nor known."""


class TooLarge(SecurityError):
    """Certificates, keys or contents beyond our limits (reliability.md M-26, M-31, M-32, M-35)."""


class NoKey(SecurityError):
    """None of the recipients it was encrypted for is one of ours; what anybody can see from outside."""


class DecryptionFailed(SecurityError):
    """It is for us and does not open. One text whatever the cause: a wrong key, padding, tag or plaintext (M-33)."""

    def __init__(self) -> None:
        super().__init__("The object cannot be decrypted.")


@dataclass(frozen=True, slots=True)
class Signer:
    """One signature that holds, and what is known of who made it."""

    names: tuple[Name, ...]
    """The addresses its certificate proves."""
    title: str
    """How to call the certificate in a sentence, escaped."""
    fingerprint: str
    """Lower-case hex: SHA-256 of an X.509 certificate, or an OpenPGP fingerprint."""
    certificate: bytes = field(repr=False)
    """DER, or the OpenPGP certificate as binary packets."""
    technology: str
    """"smime" or "openpgp"."""
    distrust: str = ""
    """Why it is not trusted, as the rest of a sentence; "" if it is."""
    distrust_code: str = ""
    """The value of ``chain.Distrust`` that goes with it: "unknown-ca", "expired", "revoked" …"""
    remark: str = ""
    """What a person should know though it is trusted, a sentence without its full stop: an out-of-date revocation list."""
    is_weak: bool = False
    """SHA-1, MD5 or a small key: never generated, and never enough for plain "valid" (SEC-11)."""
    is_pinned: bool = False
    """True if the user trusts this very certificate, not somebody who vouches for it."""
    signing_time: datetime | None = None
    """The signer's claim."""
    not_before: datetime | None = None
    not_after: datetime | None = None
    """Validity of the certificate; the signed DateTime must lie inside (M-21). None: no bound."""
    encryption_certificate: bytes = field(default=b"", repr=False)
    """What to encrypt answers to: DER of the same or a second certificate, as far as it is vouched for; b"" if there is none."""
    capabilities: tuple[str, ...] = ()
    """Ciphers that the signer announced, such as "aes-128-gcm", preferred first (SEC-20); () if nothing is known."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A decrypted object."""

    entity: bytes = field(repr=False)
    """The MIME entity that was inside, octet for octet."""
    algorithm: str
    """Such as "aes-128-gcm"."""
    is_authenticated: bool
    """True if a change on the way would have been noticed (AEAD, MDC); without it an inner signature has to (M-28)."""
    recipient: str = ""
    """Fingerprint of our certificate that opened it."""
    signatures: bytes = b""
    """OpenPGP signature packets found beside the entity (RFC 3156 section 6.2): ``openpgp.signers_of`` checks them."""
