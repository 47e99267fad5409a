"""Addresses of the middle: im: and pres: URIs (RFC 3860 appendix A, RFC 3859 appendix A).

Place on the path: every ``mapping.py`` turns its protocol's address into an ``Address`` (step 4) and back (step 8),
so that steps 5 to 7 compare one form only. An address holds decoded text; percent-encoding and ``\\hexhex`` escapes
exist only in the written forms: ``uri`` here, JIDs and SIP URIs by RFC 7247 section 6.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from urllib.parse import quote, unquote_to_bytes

import idna
from precis_i18n import get_profile

from comity.errors import AddressError

#: RFC 7622 section 3.1: no part of a JID is longer than 1023 octets; one cap for all forms keeps them convertible.
MAX_PART = 1023
#: RFC 1035 section 2.3.4, in presentation form without the final dot.
MAX_DOMAIN = 253
#: Longest written form worth reading: two parts, each octet percent-encoded.
_MAX_URI = 2 * 3 * MAX_PART + 16

# Characters that stand unencoded in a local part. im: and pres: follow mailto (RFC 6068 section 2, RFC 3986);
# sip: has the "user" rule of RFC 3261 section 25.1, its ";", "?" and "/" being different from their encoded forms.
_SAFE = "!$&'*+-.=_~"
_SAFE_SIP = "-_.!~*'()&=+$,;?/"
_SAFE_GR = "-_.!~*'()[]/:&+$"

_FAST_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_FAST_URI = re.compile(
    rf"(im|pres):([A-Za-z0-9!$&'*+\-.=_~]{{1,64}})@({_FAST_LABEL}(?:\.{_FAST_LABEL}){{0,7}})",
)
# Results are kept for written forms up to this length, so that a stranger's long ones cannot fill the memory.
_MAX_CACHED = 256
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_NOT_IN_URI = re.compile(r'[\x00-\x20"<>\\#\x7f-\x9f\ud800-\udfff]')


@dataclass(frozen=True)
class Address:
    """An im: or pres: address, decoded: ``local`` and ``domain`` are text, never percent-encoded.

    Make one with ``parse``, ``im``, ``from_any``, ``from_jid`` or ``from_sip_uri``: they normalize the domain, the bare
    constructor does not.
    """

    scheme: str
    local: str
    domain: str
    """Lower-case A-labels without a final dot, or an IP address literal."""

    @classmethod
    def parse(cls, uri: str) -> Address:
        """Read an im: or pres: URI; its ``?headers`` are dropped (ADDR-2). Raises AddressError."""
        return _parse(uri) if len(uri) <= _MAX_CACHED else _parse.__wrapped__(uri)

    @classmethod
    def im(cls, local: str, domain: str) -> Address:
        """Make the im: address of decoded text; raises AddressError."""
        return cls("im", _checked_local(local, local), _checked_domain(domain, domain))

    @classmethod
    def from_any(cls, uri: str) -> Address:
        """Read an im:, pres:, sip:, sips: or xmpp: URI as the im: address of the same user (C-22)."""
        scheme, colon, rest = uri.partition(":")
        scheme = scheme.lower()
        if scheme in ("im", "pres"):
            return cls.parse(uri).with_scheme("im")
        if scheme in ("sip", "sips"):
            return from_sip_uri(uri)[0]
        if scheme == "xmpp" and colon:
            return _from_xmpp_uri(uri, rest)
        raise AddressError(uri, "expected an im:, pres:, sip:, sips: or xmpp: URI")

    def with_scheme(self, scheme: str) -> Address:
        """The same user and domain under ``scheme`` ("im" or "pres")."""
        return self if scheme == self.scheme else Address(scheme, self.local, self.domain)

    def folded(self) -> Address:
        """The address as a domain sees it whose users are named without regard to case (ADDR-4).

        Raises AddressError for a local part that RFC 7622 does not allow.
        """
        local = unescape_local(_prepared(escape_local(self.local), self.local))
        return self if local == self.local else Address(self.scheme, local, self.domain)

    @cached_property
    def uri(self) -> str:
        """The canonical written form: everything but unreserved and harmless characters percent-encoded."""
        return f"{self.scheme}:{quote(self.local, safe=_SAFE)}@{self.domain}"

    @cached_property
    def key(self) -> str:
        """What addresses are compared by: scheme and decoded local part exactly, domain as A-label (ADDR-4)."""
        return self.uri

    @cached_property
    def domain_u(self) -> str:
        """The domain with U-labels, as XMPP and people see it; what does not decode stays an A-label."""
        if "xn--" not in self.domain:
            return self.domain
        return ".".join(_u_label(label) for label in self.domain.split("."))

    def __str__(self) -> str:
        return self.uri


@lru_cache(maxsize=8192)
def _parse(uri: str) -> Address:
    fast = _FAST_URI.fullmatch(uri)
    if fast and len(fast[3]) <= MAX_DOMAIN and not _is_all_digits(fast[3]):
        return Address(fast[1], fast[2], fast[3])
    scheme, colon, rest = uri.partition(":")
    if not colon or scheme.lower() not in ("im", "pres"):
        raise AddressError(uri, "expected im:local@domain")
    if len(uri) > _MAX_URI:
        raise AddressError(uri, "longer than any address")
    local, domain = _split_mailbox(rest.partition("?")[0], uri)
    return Address(scheme.lower(), _decoded_local(local, uri), _checked_domain(domain, uri))


def _split_mailbox(mailbox: str, uri: str) -> tuple[str, str]:
    """Split at the first "@" (RFC 7247 section 6.4); a second one would let two readers see two domains."""
    local, at, domain = mailbox.partition("@")
    if not at or "@" in domain:
        raise AddressError(uri, "expected exactly one @ between local part and domain")
    return local, domain


def _decoded(text: str, uri: str) -> str:
    if _NOT_IN_URI.search(text):
        raise AddressError(uri, "a space, control, quote, backslash, #, < or > must be percent-encoded")
    if "%" not in text:
        return text
    if _BAD_PERCENT.search(text):
        raise AddressError(uri, "% must be followed by two hexadecimal digits")
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError:
        raise AddressError(uri, "the percent-encoded octets are not UTF-8") from None


def _decoded_local(text: str, uri: str) -> str:
    return _checked_local(_decoded(text, uri), uri)


def _checked_local(local: str, uri: str) -> str:
    if not local:
        raise AddressError(uri, "the local part is empty")
    if _CONTROL.search(local):
        raise AddressError(uri, "the local part holds a control character")
    if len(local.encode("utf-8")) > MAX_PART:
        raise AddressError(uri, f"the local part is longer than {MAX_PART} octets")
    return local


def _is_all_digits(domain: str) -> bool:
    return domain[-1].isdigit() and domain.rpartition(".")[2].isdigit()


def _a_domain(domain: str) -> str | None:
    """The domain as lower-case A-labels without final dot, or an IP literal; None if it is no domain."""
    if not domain or len(domain) > MAX_PART:
        return None
    if domain[0] == "[":
        return _ipv6_literal(domain)
    if not domain.isascii():
        # UTS 46 folds case and the ideographic full stop, as RFC 7622 section 3.2 and RFC 5895 expect of input.
        try:
            domain = idna.encode(domain, uts46=True, std3_rules=True).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            return None
    domain = domain.lower().removesuffix(".")
    if not domain or len(domain) > MAX_DOMAIN:
        return None
    if not all(_LABEL.fullmatch(label) for label in domain.split(".")):
        return None
    if _is_all_digits(domain):
        return _ipv4_literal(domain)
    return domain


def _ipv4_literal(domain: str) -> str | None:
    try:
        return str(ipaddress.IPv4Address(domain))
    except ValueError:
        return None


def _ipv6_literal(domain: str) -> str | None:
    try:
        return f"[{ipaddress.IPv6Address(domain[1:-1])}]" if domain[-1] == "]" and "%" not in domain else None
    except ValueError:
        return None


def _checked_domain(domain: str, uri: str) -> str:
    result = _a_domain(domain)
    if result is None:
        raise AddressError(uri, "the part after the @ is not a domain name")
    return result


@lru_cache(maxsize=2048)
def _u_label(label: str) -> str:
    if not label.startswith("xn--"):
        return label
    try:
        text = idna.ulabel(label)
        # Only a label that comes back the same may be shown decoded; others could imitate a name.
        return text if idna.alabel(text).decode("ascii") == label else label
    except (idna.IDNAError, UnicodeError):
        return label


# --- JIDs: RFC 7622, with the escapes of RFC 7247 section 6.2 ---------------------------------------------------

_CODES = {" ": "20", '"': "22", "&": "26", "'": "27", "/": "2f", ":": "3a", "<": "3c", ">": "3e", "@": "40"}
_CHARACTERS = {code: character for character, code in _CODES.items()}
_CODE = "(?:20|22|26|27|2[fF]|3[aA]|3[cC]|3[eE]|40)"
_TO_ESCAPE = re.compile(rf"""[ "&'/:<>@]|\\(?=(?:5[cC])*{_CODE})""")
_ESCAPED = re.compile(rf"\\(?:(5[cC])(?=(?:5[cC])*{_CODE})|({_CODE}))")
_FORBIDDEN_IN_JID = re.compile(r"""[ "&'/:<>@]""")
_FAST_LOCAL = re.compile(r"[a-z0-9!#$%()*+,\-.;=?\[\]^_`{|}~]+", re.ASCII)
_username = get_profile("UsernameCaseMapped")


def escape_local(local: str) -> str:
    r"""Write text as a JID localpart: what XMPP forbids becomes ``\hexhex`` (ADDR-21, ADDR-22).

    A backslash is itself escaped (``\5c``) exactly where what follows would read as an escape, however many ``5c`` stand
    between. So every text has one localpart and every localpart one text (ADDR-23); the published rule
    (XEP-0106) leaves a few localparts such as ``a\5cb`` without a text of their own.
    """
    if _FAST_LOCAL.fullmatch(local):
        return local
    return _TO_ESCAPE.sub(lambda found: "\\" + _CODES.get(found[0], "5c"), local)


def unescape_local(localpart: str) -> str:
    """Read a JID localpart as text; the inverse of ``escape_local``."""
    if "\\" not in localpart:
        return localpart
    return _ESCAPED.sub(lambda found: "\\" if found[1] else _CHARACTERS[found[2].lower()], localpart)


def _prepared(localpart: str, text: str) -> str:
    """Apply PRECIS UsernameCaseMapped (RFC 7622 section 3.3) to an escaped localpart."""
    if not _FAST_LOCAL.fullmatch(localpart):
        if _FORBIDDEN_IN_JID.search(localpart):
            raise AddressError(text, "the localpart holds a character that XMPP forbids")
        try:
            localpart = _username.enforce(localpart)
        except UnicodeError:
            raise AddressError(text, "RFC 7622 does not allow a character of the localpart") from None
        if _FORBIDDEN_IN_JID.search(localpart):
            raise AddressError(text, "the localpart maps to a character that XMPP forbids")
    if len(localpart.encode("utf-8")) > MAX_PART:
        raise AddressError(text, f"the localpart is longer than {MAX_PART} octets")
    return localpart


@lru_cache(maxsize=8192)
def to_jid(address: Address) -> str:
    """Write an address as a bare JID: escapes, case mapping, U-labels (RFC 7247 section 6.4). Raises AddressError."""
    return f"{_prepared(escape_local(address.local), address.uri)}@{address.domain_u}"


def from_jid(jid: str) -> tuple[Address, str]:
    """Read a JID as the im: address of its user and the resource, "" if it has none (RFC 7247 section 6.5).

    The JID is split before anything is mapped and the resource is not interpreted (ADDR-25). Raises AddressError.
    """
    return _from_jid(jid) if len(jid) <= _MAX_CACHED else _from_jid.__wrapped__(jid)


@lru_cache(maxsize=8192)
def _from_jid(jid: str) -> tuple[Address, str]:
    if len(jid) > 3 * MAX_PART + 2:
        raise AddressError(jid, "longer than any JID")
    bare, slash, resource = jid.partition("/")
    localpart, at, domainpart = bare.partition("@")
    if not at or not localpart:
        raise AddressError(jid, "expected local@domain")
    if slash and not (resource and not _CONTROL.search(resource) and len(resource.encode("utf-8")) <= MAX_PART):
        raise AddressError(jid, f"the resource must have 1 to {MAX_PART} octets and no control characters")
    local = unescape_local(_prepared(localpart, jid))
    return Address("im", _checked_local(local, jid), _checked_domain(domainpart, jid)), resource


def _from_xmpp_uri(uri: str, rest: str) -> Address:
    """Read the address of an xmpp: URI (RFC 5122): an authority component, resource, query and fragment are dropped."""
    rest = rest.partition("#")[0].partition("?")[0]
    if rest.startswith("//"):
        rest = rest[2:].partition("/")[2]
    bare = rest.partition("/")[0]
    localpart, domain = _split_mailbox(bare, uri)
    return from_jid(f"{_decoded(localpart, uri)}@{_decoded(domain, uri)}")[0]


# --- SIP URIs: RFC 3261 section 19.1, with RFC 7247 section 6.5 -------------------------------------------------


@lru_cache(maxsize=8192)
def to_sip_uri(address: Address, gr: str = "") -> str:
    """Write an address as a sip: URI; ``gr`` (an XMPP resource) becomes the gr parameter of a public GRUU."""
    parameter = f";gr={quote(gr, safe=_SAFE_GR)}" if gr else ""
    return f"sip:{quote(address.local, safe=_SAFE_SIP)}@{address.domain}{parameter}"


def from_sip_uri(uri: str) -> tuple[Address, str]:
    """Read a sip: or sips: URI as an im: address and its gr value, "" if none or a temporary GRUU (ADDR-24).

    Password, port, other parameters and headers are dropped. Raises AddressError.
    """
    return _from_sip_uri(uri) if len(uri) <= _MAX_CACHED else _from_sip_uri.__wrapped__(uri)


@lru_cache(maxsize=8192)
def _from_sip_uri(uri: str) -> tuple[Address, str]:
    scheme, colon, rest = uri.partition(":")
    if not colon or scheme.lower() not in ("sip", "sips"):
        raise AddressError(uri, "expected sip:user@domain")
    if len(uri) > 2 * _MAX_URI:
        raise AddressError(uri, "longer than any address")
    # "?" and ";" are ordinary characters of the user part, so the "@" is looked for first.
    user, tail = _split_mailbox(rest, uri)
    host_port, _, parameters = tail.partition("?")[0].partition(";")
    local = _decoded_local(user.partition(":")[0], uri)
    domain = _checked_domain(_without_port(host_port, uri), uri)
    gr = ""
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "gr":
            gr = _decoded(value, uri)
    if len(gr.encode("utf-8")) > MAX_PART or _CONTROL.search(gr):
        raise AddressError(uri, "the gr parameter cannot be a resource")
    return Address("im", local, domain), gr


def _without_port(host_port: str, uri: str) -> str:
    host, colon, port = host_port, "", ""
    if host_port.startswith("["):
        end = host_port.find("]") + 1
        host, colon, port = host_port[:end], host_port[end : end + 1], host_port[end + 1 :]
    elif ":" in host_port:
        host, colon, port = host_port.partition(":")
    if (colon not in ("", ":")) or (colon and not (port.isascii() and port.isdigit() and len(port) <= 5)):
        raise AddressError(uri, "the port is not a number")
    return host
