"""Server dialback: keys, and what stands on the wire (XEP-0220); which domains a certificate names (RFC 6120 section 13.7).

Place on the path: beside step 3 of a stream between servers. Pure. Dialback believes the DNS, so it counts only for domains that the
operator listed (``[policy] dialback``). A key is an HMAC over its fields, each with its length: no two keys say the same of different
domains (CVE-2016-0756, D-06).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Final

from comity.bindings.base import TlsInfo
from comity.bindings.xmpp import wire
from comity.bindings.xmpp.jid import prepare_domain
from comity.bindings.xmpp.wire import Element
from comity.errors import AddressError

DIALBACK: Final = "jabber:server:dialback"
RESULT: Final = f"{{{DIALBACK}}}result"
VERIFY: Final = f"{{{DIALBACK}}}verify"
FEATURE: Final = "{urn:xmpp:features:dialback}dialback"
ERRORS: Final = "{urn:xmpp:features:dialback}errors"
SERVICE: Final = "_xmpp-server."
"""What an SRVName for a server begins with (RFC 6120 section 13.7.1.2)."""


class Keys:
    """Makes and checks our own keys.

    Args:
        secret: gives the secret, which never leaves this node.
    """

    def __init__(self, secret: Callable[[], bytes]) -> None:
        self._secret = secret

    def key(self, receiving: str, originating: str, stream_id: str) -> str:
        """The key that proves to ``receiving`` that who shows it on that stream is ``originating``."""
        fields = [part.encode("utf-8", "surrogatepass") for part in (receiving, originating, stream_id)]
        message = b"".join(len(part).to_bytes(4, "big") + part for part in fields)
        return hmac.digest(self._secret(), message, hashlib.sha256).hex()

    def is_right(self, receiving: str, originating: str, stream_id: str, key: str) -> bool:
        """Whether that key was made here for that stream."""
        return hmac.compare_digest(self.key(receiving, originating, stream_id).encode(), key.strip().encode())


def answer(element: Element, kind: str, condition: str = "", text: str = "") -> Element:
    """The answer to a ``db:result`` or ``db:verify``: "valid", "invalid", or "error" with its condition (section 2.5)."""
    attributes = {"from": element.get("to"), "to": element.get("from"), "type": kind}
    if element.get("id"):
        attributes["id"] = element.get("id")
    error: list[Element | str] = [wire.error_element(condition, text)] if condition else []
    return Element(element.name, {name: value for name, value in attributes.items() if value}, error)


def names_domain(tls: TlsInfo | None, domain: str) -> bool:
    """Whether the certificate shown, which verified, is for a server of ``domain`` (U- or A-labels).

    Its subjectAltName alone counts: dNSName, where a wildcard stands for the first label; SRVName; XmppAddr that is a bare domain, so that
    no user's certificate speaks for the domain (D-16)."""
    if tls is None or tls.peer_certificate is None:
        return False
    wanted = _prepared(domain)
    if not wanted:
        return False
    names = [*tls.names, *(name[len(SERVICE) :] for name in tls.service_names if name.lower().startswith(SERVICE))]
    if any(_prepared(name) == wanted for name in names):
        return True
    if any(_prepared(name) == wanted for name in tls.xmpp_names if "@" not in name and "/" not in name):
        return True
    first, _, rest = wanted.partition(".")
    return bool(first and "." in rest) and any(
        _prepared(name[2:]) == rest for name in tls.names if name.startswith("*.")
    )


def _prepared(name: str) -> str:
    try:
        return prepare_domain(name)
    except AddressError:
        return ""
