"""APEX endpoint identities: ``local[/subaddress]@domain`` (RFC 3340 section 2.2), and the addresses they stand for.

Place on the path: steps 4 and 8. The local part is compared exactly, the domain as A-labels (ADDR-27). Everything that begins
with ``apex=`` is a service's own name and stands for no person (ADDR-28).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, unquote

from comity.cpim.address import Address
from comity.errors import AddressError

#: "all non-control characters, excluding "/" and "@" delimiters" (RFC 3340 section 2.2).
_TOKEN = re.compile(r"[^/@\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
_URI_SAFE = "/@=:+!$&'()*,;~[]"
_ENCODED = re.compile("(?:[A-Za-z0-9/@=:+!$&'()*,;~._-]|[][]|%[0-9A-Fa-f]{2})+")
_SERVICE = "apex="
MAX_IDENTITY = 1023
"""Octets of a written identity that are read."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint identity; make one with ``parse`` or ``of``.

    Attributes:
        address: the local part up to the solidus.
        subaddress: what stands behind it, "" if there is none.
        domain: lower-case A-labels without final dot, or an address literal as ``Address`` has it.
    """

    address: str
    subaddress: str
    domain: str

    @classmethod
    def parse(cls, identity: str) -> Endpoint:
        """Read an identity as it stands in an attribute. Raises AddressError."""
        return _parse(identity)

    @classmethod
    def of(cls, address: Address, subaddress: str = "") -> Endpoint:
        """The endpoint of a person. Raises AddressError for a name that APEX cannot write, or that is a service's."""
        endpoint = cls(address.local, subaddress, address.domain)
        for token in (address.local, subaddress or "-"):
            if not _TOKEN.fullmatch(token):
                raise AddressError(address.uri, "APEX has no form for this name: it holds / or @")
        if endpoint.is_service:
            raise AddressError(address.uri, "names that begin with apex= are those of APEX services")
        return endpoint

    @classmethod
    def service(cls, name: str, domain: str) -> Endpoint:
        """The well-known endpoint ``apex=NAME`` of a domain (RFC 3340 section 6)."""
        return cls(_SERVICE + name, "", domain)

    @classmethod
    def of_uri(cls, uri: str) -> Endpoint:
        """The endpoint that an ``apex:`` URI names, its encoding reversed (RFC 3340 section 2.2.1). Raises AddressError."""
        scheme, colon, encoded = uri.partition(":")
        if scheme.lower() != "apex" or not colon or not _ENCODED.fullmatch(encoded):
            raise AddressError(uri, "not an apex: URI")
        try:
            return cls.parse(unquote(encoded, errors="strict"))
        except UnicodeDecodeError:
            raise AddressError(uri, "not UTF-8 inside its encoding") from None

    @property
    def uri(self) -> str:
        """The ``apex:`` URI, as in the examples of RFC 3343."""
        return "apex:" + quote(str(self), safe=_URI_SAFE)

    @property
    def is_service(self) -> bool:
        """True for a well-known endpoint."""
        return self.address.startswith(_SERVICE)

    @property
    def service_name(self) -> str:
        """``presence`` for ``apex=presence``; "" for a person's."""
        return self.address.removeprefix(_SERVICE) if self.is_service else ""

    @property
    def bare(self) -> Endpoint:
        """Without the subaddress."""
        return Endpoint(self.address, "", self.domain) if self.subaddress else self

    def to_address(self) -> Address:
        """The im: address of the person; the subaddress is left out. Raises AddressError for a service (ADDR-28)."""
        if self.is_service:
            raise AddressError(str(self), "an APEX service is nobody who can be written to from elsewhere")
        return Address.im(self.address, self.domain)

    def __str__(self) -> str:
        local = f"{self.address}/{self.subaddress}" if self.subaddress else self.address
        return f"{local}@{self.domain}"


@lru_cache(maxsize=4096)
def _parse(identity: str) -> Endpoint:
    if len(identity.encode("utf-8", "surrogatepass")) > MAX_IDENTITY:
        raise AddressError(identity[:64], "the endpoint identity is too long")
    local, at, domain = identity.rpartition("@")
    address, slash, subaddress = local.partition("/")
    if not at or not _TOKEN.fullmatch(address) or (slash and not _TOKEN.fullmatch(subaddress)):
        raise AddressError(identity, "expected local@domain or local/subaddress@domain")
    # ``Address`` has one rule for domains; the local part is only carried through it.
    return Endpoint(
        address,
        subaddress,
        Address.im("-", domain.removeprefix("[").removesuffix("]") if _is_ipv4(domain) else domain).domain,
    )


def _is_ipv4(domain: str) -> bool:
    """APEX writes an IPv4 literal in brackets too (RFC 2821 section 4.1.3)."""
    return domain.startswith("[") and ":" not in domain
