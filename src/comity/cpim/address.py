"""Addresses of the middle: im: and pres: URIs (RFC 3860 appendix A, RFC 3859 appendix A)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote, unquote_to_bytes

from comity.errors import AddressError


@dataclass(frozen=True)
class Address:
    """An im: or pres: address, decoded: ``local`` and ``domain`` are text, never percent-encoded."""

    scheme: str
    local: str
    domain: str

    @classmethod
    def parse(cls, uri: str) -> Address:
        scheme, colon, rest = uri.partition(":")
        local, at, domain = rest.partition("?")[0].rpartition("@")
        if not colon or not at or not local or not domain or scheme.lower() not in ("im", "pres"):
            raise AddressError(uri, "expected im:local@domain")
        return cls(scheme.lower(), unquote_to_bytes(local).decode("utf-8"), domain.lower())

    @cached_property
    def uri(self) -> str:
        return f"{self.scheme}:{quote(self.local, safe=_SAFE)}@{self.domain}"

    @cached_property
    def key(self) -> str:
        return self.uri

    def __str__(self) -> str:
        return self.uri


_SAFE = "!$*+=^_{}|~.-"
