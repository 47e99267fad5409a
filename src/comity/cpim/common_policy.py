"""Who may do what, as its owner wrote it down: common policy (RFC 4745).

Place on the path: step 5, under ``presence_rules.py``. A rule set is parsed once, when it is stored; its octets are kept,
since they belong to the owner. Permissions only ever add up, so a rule that is not understood gives nothing: an unknown
condition is false, and so is an identity with something unknown inside.

A document that breaks the schema is refused as a whole, so that its owner learns of it and the last good one stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, unquote

from comity.cpim.address import Address, to_jid, to_sip_uri
from comity.cpim.documents import read_document
from comity.cpim.header import read_timestamp
from comity.errors import AddressError, MalformedMessage
from comity.xml import Element, XmlLimits

POLICY_TYPE: Final = "application/auth-policy+xml"
COMMON_POLICY: Final = "urn:ietf:params:xml:ns:common-policy"
#: Some 2,000 people by name.
RULE_LIMITS: Final = XmlLimits(octets=192 * 1024, depth=16, elements=4096, attributes=16, namespaces=32)
_SPACE: Final = " \t\r\n"


@dataclass(frozen=True, slots=True)
class Requestor:
    """Who asks: every URI that names the authenticated watcher; none if nobody was authenticated (ACL-19)."""

    uris: frozenset[str] = frozenset()
    """In canonical form, see ``canonical``."""

    @classmethod
    def of(cls, *uris: str) -> Requestor:
        """Make one of URIs as they were asserted."""
        return cls(frozenset(canonical(uri) for uri in uris))

    @classmethod
    def account(cls, address: Address) -> Requestor:
        """Make one of an account, which is one user under each scheme it can sign in with."""
        uris = [address.with_scheme("im").uri, address.with_scheme("pres").uri, to_sip_uri(address)]
        try:
            uris.append("xmpp:" + quote(to_jid(address), safe="@"))
        except AddressError:
            pass  # no XMPP client can have that name
        return cls.of(*uris)


@dataclass(frozen=True, slots=True)
class Question:
    """What conditions are asked about."""

    requestor: Requestor
    now: datetime
    """Aware."""
    sphere: str = ""
    """Of the presentity; "" if undefined (RFC 5025 section 3.1.2)."""


@dataclass(frozen=True, slots=True)
class One:
    """Exactly one user (section 7.1.2)."""

    uri: str

    def holds(self, question: Question) -> bool:
        """True if the requestor is that user."""
        return self.uri in question.requestor.uris


@dataclass(frozen=True, slots=True)
class Many:
    """Any authenticated user, of a domain if one is named, but for exceptions (section 7.1.3)."""

    domain: str = ""
    """"" for any; "?" for one that no domain equals."""
    except_uris: frozenset[str] = frozenset()
    except_domains: frozenset[str] = frozenset()

    def holds(self, question: Question) -> bool:
        """True if the requestor is among them under every exception."""
        uris = question.requestor.uris
        domains = {domain for uri in uris if (domain := _domain_of(uri))}
        if not uris or uris & self.except_uris or domains & self.except_domains:
            return False
        return not self.domain or self.domain in domains


@dataclass(frozen=True, slots=True)
class Identity:
    """One of several (section 7.1.1); unknown kinds are left out, because they are false."""

    anyone: tuple[One | Many, ...]

    def holds(self, question: Question) -> bool:
        """True if any of them does."""
        return any(one.holds(question) for one in self.anyone)


@dataclass(frozen=True, slots=True)
class Sphere:
    """The presentity is in one of these spheres (section 7.3)."""

    tokens: frozenset[str]
    """In lower case."""

    def holds(self, question: Question) -> bool:
        """True if the sphere is known and among them."""
        return bool(question.sphere) and question.sphere.lower() in self.tokens


@dataclass(frozen=True, slots=True)
class Validity:
    """It is now (section 7.4)."""

    spans: tuple[tuple[datetime, datetime], ...]

    def holds(self, question: Question) -> bool:
        """True from the first up to but without the second instant of any pair."""
        return any(begin <= question.now < end for begin, end in self.spans)


@dataclass(frozen=True, slots=True)
class Unknown:
    """A condition of another namespace: false (section 7)."""

    def holds(self, _: Question) -> bool:
        """Never."""
        return False


Condition = Identity | Sphere | Validity | Unknown


@dataclass(frozen=True, slots=True)
class Rule:
    """If all conditions hold, then actions and transformations are granted (section 10.1)."""

    id: str
    conditions: tuple[Condition, ...]
    grants: tuple[Element, ...] = field(repr=False)
    """Children of actions and transformations, in order."""

    def holds(self, question: Question) -> bool:
        """True if all conditions do; a rule without any is for everybody."""
        return all(condition.holds(question) for condition in self.conditions)


@dataclass(frozen=True, slots=True)
class RuleSet:
    """An immutable view of a rule set; made by ``parse``."""

    raw: bytes = field(repr=False)
    rules: tuple[Rule, ...] = field(compare=False)

    @classmethod
    def parse(cls, raw: bytes, *, charset: str = "", limits: XmlLimits = RULE_LIMITS) -> RuleSet:
        """Read a rule set; raises MalformedMessage (hint "size" for one that passes a limit, N-24)."""
        root = read_document(raw, limits, charset)
        if root.name != _cp("ruleset"):
            raise MalformedMessage("the root is not ruleset in the namespace of RFC 4745")
        rules = tuple(_rule(element) for element in root.find_all(_cp("rule")))
        if len({rule.id for rule in rules}) != len(rules):
            raise MalformedMessage("two rules have one id")
        return cls(raw, rules)

    def applying(self, question: Question) -> list[Rule]:
        """The rules that hold; their order means nothing (section 10.2)."""
        return [rule for rule in self.rules if rule.holds(question)]

    def next_change(self, now: datetime) -> datetime | None:
        """The next instant after ``now`` at which a validity begins or ends."""
        conditions = (condition for rule in self.rules for condition in rule.conditions)
        spans = (span for condition in conditions if isinstance(condition, Validity) for span in condition.spans)
        return min((at for span in spans for at in span if at > now), default=None)


def _cp(local: str) -> str:
    return f"{{{COMMON_POLICY}}}{local}"


def _rule(element: Element) -> Rule:
    id = element.get("id").strip(_SPACE)
    if not id:
        raise MalformedMessage("a rule has no id")
    conditions = _section(element, "conditions")
    grants = [*_section(element, "actions"), *_section(element, "transformations")]
    return Rule(id, tuple(_condition(child) for child in conditions), tuple(grants))


def _section(rule: Element, name: str) -> list[Element]:
    found = rule.find_all(_cp(name))
    if len(found) > 1:
        raise MalformedMessage(f"{name} stands twice in one rule")
    return list(found[0].elements()) if found else []


def _condition(element: Element) -> Condition:
    if element.name == _cp("identity"):
        return _identity(element)
    if element.name == _cp("sphere"):
        return _sphere(element)
    return _validity(element) if element.name == _cp("validity") else Unknown()


def _identity(element: Element) -> Identity:
    children = list(element.elements())
    if not children:
        # RFC 5025 section 3.1.1.2 takes an empty identity for everybody, RFC 4745 for nobody, and its schema forbids it.
        raise MalformedMessage("an identity names nobody")
    anyone: list[One | Many] = []
    for child in children:
        if child.name == _cp("one"):
            uri = _uri(child)
            if not list(child.elements()):
                anyone.append(One(uri))
        elif child.name == _cp("many"):
            exceptions = list(child.elements())
            many = _many(child, [e for e in exceptions if e.name == _cp("except")])
            if all(e.name == _cp("except") for e in exceptions):
                anyone.append(many)
    return Identity(tuple(anyone))


def _uri(element: Element) -> str:
    uri = element.get("id").strip(_SPACE)
    if not uri or "domain" in element.attributes:
        raise MalformedMessage(f"{element.local} names not exactly one user")
    return canonical(uri)


def _many(element: Element, exceptions: Iterable[Element]) -> Many:
    uris, domains = set[str](), set[str]()
    for exception in exceptions:
        if "id" in exception.attributes:
            uris.add(_uri(exception))
        elif exception.get("domain").strip(_SPACE):
            domains.add(_domain(exception.get("domain")) or "?")
        else:
            raise MalformedMessage("an exception names neither a user nor a domain")
    domain = (_domain(element.get("domain")) or "?") if "domain" in element.attributes else ""
    return Many(domain, frozenset(uris), frozenset(domains))


def _sphere(element: Element) -> Sphere:
    tokens = element.get("value").lower().split()
    if not tokens:
        raise MalformedMessage("a sphere has no value")
    return Sphere(frozenset(tokens))


def _validity(element: Element) -> Validity:
    children = list(element.elements())
    names = [child.name for child in children]
    if not children or names != [_cp("from"), _cp("until")] * (len(children) // 2):
        raise MalformedMessage("a validity is not made of pairs of from and until")
    times = [read_timestamp(child.text.strip(_SPACE)) for child in children]
    instants = [when.astimezone(UTC) for when in times if when is not None]
    if len(instants) != len(times):
        raise MalformedMessage("a validity holds what is no timestamp with a time zone")
    return Validity(tuple(zip(instants[::2], instants[1::2], strict=True)))


# --- URIs and domains ------------------------------------------------------------------------------------------------

_USER_SCHEMES: Final = frozenset({"im", "pres", "sip", "sips", "xmpp", "mailto"})
_SEPARATORS = re.compile(r"[-.() ]")


def canonical(uri: str) -> str:
    """A URI in the form in which equal ones are equal; URIs of different schemes never are (RFC 5025 section 3.1.1.2)."""
    scheme, colon, rest = uri.partition(":")
    scheme = scheme.lower()
    if not colon:
        return uri
    if scheme == "tel":
        number, semicolon, parameters = rest.partition(";")
        return f"tel:{_SEPARATORS.sub('', number)}{semicolon}{parameters.lower()}"
    if scheme == "urn":
        kind, _, name = rest.partition(":")
        return f"urn:{kind.lower()}:{name.lower() if kind.lower() == 'uuid' else name}"
    if scheme in _USER_SCHEMES:
        return f"{scheme}:{_canonical_user(scheme, rest)}"
    return f"{scheme}:{rest}"


def _canonical_user(scheme: str, rest: str) -> str:
    user, at, host = rest.partition("@")
    if at and not any(mark in host for mark in ";?:/"):
        try:
            known = f"im:{rest}" if scheme == "mailto" else f"{scheme}:{rest}"
            return Address.from_any(known).uri.partition(":")[2]
        except AddressError:
            pass
    # Parameters and ports make another URI; only the case of the host does not count.
    stop = re.search(r"[;?/]", host)
    end = stop.start() if stop else len(host)
    return f"{user}{at}{host[:end].lower()}{host[end:]}"


def _domain(text: str) -> str | None:
    """Percent-decoding, then ToASCII (section 7.1.3); None if that fails, which equals nothing."""
    try:
        return Address.im("x", unquote(text.strip(_SPACE))).domain
    except AddressError:
        return None


def _domain_of(uri: str) -> str | None:
    scheme, _, rest = uri.partition(":")
    if scheme not in _USER_SCHEMES or "@" not in rest:
        return None
    return _domain(re.split(r"[;?:/]", rest.partition("@")[2])[0])
