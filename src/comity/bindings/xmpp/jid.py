"""JIDs: parse, prepare, compare (RFC 7622).

Place on the path: step 2, wherever a stanza names somebody. Text comes in, a prepared ``Jid`` goes out; two
JIDs are the same exactly when they are equal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import idna
import precis_i18n

from comity.errors import AddressError

#: RFC 7622 section 3.1: each part is 1 to 1023 octets of UTF-8.
MAX_PART = 1023
#: Longest text looked at as a part: preparing costs time for each character, and composing (NFC) saves two of three.
MAX_RAW_PART = 3 * MAX_PART
#: Longest JID kept: a stranger may not fill the memory with 8,192 of the longest.
MAX_CACHED = 256
_LOCAL_FORBIDDEN = re.compile("[\"&'/:<>@]")
_SIMPLE_LOCAL = re.compile(r"[a-z0-9!#$%()*+,\-.;=?\[\\\]^_`{|}~]{1,1023}", re.IGNORECASE)
_SIMPLE_DOMAIN = re.compile(
    r"(?!.*xn--)(?:[a-z0-9](?:[a-z0-9\-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9\-]{0,61}[a-z0-9])?"
)
_SIMPLE_RESOURCE = re.compile(r"[!-~]{1,1023}")
_USERNAME = precis_i18n.get_profile("UsernameCaseMapped")
_OPAQUE = precis_i18n.get_profile("OpaqueString")


@dataclass(frozen=True, slots=True)
class Jid:
    """A prepared JID; ``domain`` is in U-labels, a missing part is ""."""

    local: str
    domain: str
    resource: str = ""

    @classmethod
    def parse(cls, text: str) -> Jid:
        """Read and prepare a JID.

        Raises:
            AddressError: it is none (RFC 7622 section 3).
        """
        return _parse(text) if len(text) <= MAX_CACHED else _parse.__wrapped__(text)

    @property
    def bare(self) -> Jid:
        """This JID without its resource."""
        return Jid(self.local, self.domain) if self.resource else self

    @property
    def is_bare(self) -> bool:
        """True if there is no resource."""
        return not self.resource

    def with_resource(self, resource: str) -> Jid:
        """This account's device ``resource`` (prepared). Raises AddressError."""
        return Jid(self.local, self.domain, prepare_resource(resource))

    def __str__(self) -> str:
        account = f"{self.local}@{self.domain}" if self.local else self.domain
        return f"{account}/{self.resource}" if self.resource else account


@lru_cache(maxsize=8192)
def _parse(text: str) -> Jid:
    # RFC 7622 section 3.1: cut at the first slash, then at the first at-sign, before any mapping.
    account, slash, resource = text.partition("/")
    local, at, domain = account.partition("@")
    if not at:
        local, domain = "", account
    elif not local:
        raise AddressError(text, "the part before @ is empty")
    if slash and not resource:
        raise AddressError(text, "the resource is empty")
    try:
        return Jid(
            prepare_local(local) if local else "",
            prepare_domain(domain),
            prepare_resource(resource) if resource else "",
        )
    except AddressError as error:
        raise AddressError(text, error.reason) from None


def prepare_local(text: str) -> str:
    """Apply the UsernameCaseMapped profile and the characters excluded in JIDs (RFC 7622 section 3.3.1)."""
    if _SIMPLE_LOCAL.fullmatch(text):
        return text.lower()
    _check_raw(text)
    try:
        prepared: str = _USERNAME.enforce(text)
    except (UnicodeError, ValueError):
        raise AddressError(text, "the part before @ holds a character that is not allowed") from None
    if _LOCAL_FORBIDDEN.search(prepared):
        raise AddressError(text, "the part before @ holds one of \" & ' / : < > @")
    return _sized(prepared)


def prepare_domain(text: str) -> str:
    """U-labels in lower case without a final dot (RFC 7622 section 3.2)."""
    text = text.removesuffix(".").lower()
    if len(text) < 254 and _SIMPLE_DOMAIN.fullmatch(text):
        return text
    _check_raw(text)
    try:
        ascii_form = idna.encode(text, uts46=True)
        return _sized(idna.decode(ascii_form).removesuffix("."))  # other full stops become one
    except (UnicodeError, ValueError, IndexError):
        raise AddressError(text, "the domain is not valid") from None


def prepare_resource(text: str) -> str:
    """Apply the OpaqueString profile (RFC 7622 section 3.4)."""
    if _SIMPLE_RESOURCE.fullmatch(text):
        return text
    _check_raw(text)
    try:
        prepared: str = _OPAQUE.enforce(text)
    except (UnicodeError, ValueError):
        raise AddressError(text, "the resource holds a character that is not allowed") from None
    return _sized(prepared)


def _check_raw(text: str) -> None:
    if len(text) > MAX_RAW_PART:
        raise AddressError(text, f"each part is 1 to {MAX_PART} octets long")


def _sized(text: str) -> str:
    if not 1 <= len(text.encode("utf-8", "surrogatepass")) <= MAX_PART:
        raise AddressError(text, f"each part is 1 to {MAX_PART} octets long")
    return text
