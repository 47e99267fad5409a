"""What documents XCAP keeps here and what each of them has to be (RFC 4825 section 5).

Place on the path: beside it; ``resources.py`` asks which usage a URI means and whether a document may become what was put. One
document an account and usage: presence rules (RFC 5025 section 9, and by its OMA name), resource lists and RLS services
(RFC 4826), presence that stays (RFC 4827); and for everybody the server's capabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar
from urllib.parse import SplitResult, quote, urlsplit

from comity.cpim.address import Address
from comity.cpim.common_policy import POLICY_TYPE, RULE_LIMITS
from comity.cpim.presence import PIDF, PresenceDocument
from comity.cpim.presence_rules import PRES_RULES, PresenceRules
from comity.errors import AddressError, MalformedMessage
from comity.xcap.errors import Conflict, Refused
from comity.xcap.selector import Document
from comity.xcap.uri import Target, parse_target
from comity.xml import XML_LANG, Element, XmlLimits, serialize

LISTS: Final = "urn:ietf:params:xml:ns:resource-lists"
SERVICES: Final = "urn:ietf:params:xml:ns:rls-services"
CAPS: Final = "urn:ietf:params:xml:ns:xcap-caps"
LISTS_TYPE: Final = "application/resource-lists+xml"
SERVICES_TYPE: Final = "application/rls-services+xml"
PIDF_TYPE: Final = "application/pidf+xml"
CAPS_TYPE: Final = "application/xcap-caps+xml"
#: 2,000 people with names, in several lists.
LIST_LIMITS: Final = XmlLimits(octets=256 * 1024, depth=16, elements=8192, attributes=16, namespaces=32)
#: A document that took up the contact list may have become longer than what may be put; reading it takes 0.2 s at most.
FULL_LIMITS: Final = XmlLimits(octets=1024 * 1024, depth=16, elements=24_576, attributes=16, namespaces=32)
PIDF_LIMITS: Final = XmlLimits(octets=64 * 1024, depth=32, elements=2048, attributes=32, namespaces=32)
_XSI: Final = "http://www.w3.org/2001/XMLSchema-instance"
_SPACE: Final = " \t\r\n"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Usage:
    """One application usage."""

    auid: str
    media_type: str
    namespace: str
    """Default document namespace of its node selectors."""
    stored: str
    """Name in ``Documents``."""
    limits: XmlLimits
    validate: Callable[[Document, Address], None]
    """Raises Conflict if the document may not be that account's."""
    names: frozenset[str] = frozenset({"index"})
    """What the one document may be called."""


# --- validation ----------------------------------------------------------------------------------------------------


def _validate_rules(document: Document, owner: Address) -> None:
    _parsed(PresenceRules.parse, document)


def _validate_presence(document: Document, owner: Address) -> None:
    """RFC 4827 section 7; and it is about its owner (N-19)."""
    entity = _parsed(PresenceDocument.parse, document).entity
    try:
        is_own = Address.from_any(entity).folded().key == owner.key
    except AddressError:
        is_own = False
    if not is_own:
        raise Conflict("constraint-failure", "the document is about somebody else")


def _parsed(parse: Callable[[bytes], _T], document: Document) -> _T:
    try:
        return parse(document.octets)
    except MalformedMessage as error:
        if error.hint == "size":
            raise Refused(413, error.reason) from None
        raise Conflict("schema-validation-error", error.reason) from None


def _validate_lists(document: Document, owner: Address) -> None:
    """RFC 4826 sections 3.2 and 3.4.5."""
    root = document.root.element
    _expect(root.name == f"{{{LISTS}}}resource-lists", "the root element is not resource-lists")
    _expect_content(root, frozenset(), LISTS, is_open=False)
    for child in root.elements():
        _expect(child.name == f"{{{LISTS}}}list", "resource-lists holds something other than lists")
        _validate_list(child)
    _expect_unique(root, "list", "name", "resource-lists")
    for path, one in _walk_lists(root, "resource-lists"):
        _validate_members(one, path)


def _validate_services(document: Document, owner: Address) -> None:
    """RFC 4826 sections 4.2 and 4.4.5, but for what needs a look at other accounts."""
    root = document.root.element
    _expect(root.name == f"{{{SERVICES}}}rls-services", "the root element is not rls-services")
    _expect_content(root, frozenset(), SERVICES, is_open=False)
    for index, service in enumerate(root.elements(), 1):
        _expect(service.name == f"{{{SERVICES}}}service", "rls-services holds something other than services")
        _validate_service(service, owner, f"rls-services/*[{index}]")
    _expect_unique(root, "service", "uri", "rls-services", SERVICES)


def _validate_service(service: Element, owner: Address, path: str) -> None:
    _expect_content(service, frozenset({"uri"}), SERVICES)
    _expect("uri" in service.attributes, "a service has no uri")
    own, _ = _own_then_others(service, SERVICES)
    names = [child.local for child in own]
    _expect(names[:1] in (["resource-list"], ["list"]) and names[1:] in ([], ["packages"]), "a service is incomplete")
    if names[0] == "list":
        _validate_list(own[0])
        _validate_members(own[0], f"{path}/list")
        for below, one in _walk_lists(own[0], f"{path}/list"):
            _validate_members(one, below)
    else:
        _expect_text(own[0], frozenset())
        _validate_reference(own[0].text, owner)
    for packages in own[1:]:
        _expect_content(packages, frozenset(), SERVICES, is_open=False)
        for package in packages.elements():
            _expect(package.namespace not in (SERVICES, "") or package.name == f"{{{SERVICES}}}package", "no package")
            if package.namespace == SERVICES:
                _expect_text(package, frozenset())


def _validate_reference(text: str, owner: Address) -> None:
    """An absolute HTTP URI below the owner's own lists."""
    try:
        target = path_of(text)
        is_own = target.auid == "resource-lists" and owner_of(target.user or "") == owner
    except Refused:
        is_own = False
    if _uri_parts(text).scheme not in ("http", "https") or not is_own:
        phrase = "resource-list does not name a list among the account's own resource-lists"
        raise Conflict("constraint-failure", phrase)


def path_of(text: str) -> Target:
    """What an XCAP URI inside a document is about, whatever root it has. Raises Refused."""
    parts = _uri_parts(text)
    return parse_target(parts.path + (f"?{parts.query}" if parts.query else ""))


def _validate_list(one: Element) -> None:
    """``listType``: a name for people, members, then others' elements; lists in it too."""
    _expect_content(one, frozenset({"name"}), LISTS)
    own, _ = _own_then_others(one, LISTS)
    for index, child in enumerate(own):
        if child.local == "display-name":
            _expect(index == 0, "display-name does not come first")
            _expect_text(child, frozenset({XML_LANG}))
        elif child.local == "list":
            _validate_list(child)
        else:
            wanted = _REFERENCE.get(child.local)
            _expect(wanted is not None, "a list holds an element that is not known")
            assert wanted is not None
            _expect_content(child, frozenset({wanted}), LISTS)
            _expect(wanted in child.attributes, f"{child.local} has no {wanted}")
            inner, _ = _own_then_others(child, LISTS)
            _expect([part.local for part in inner] in ([], ["display-name"]), f"{child.local} holds more than a name")
            for part in inner:
                _expect_text(part, frozenset({XML_LANG}))


#: What refers to somebody, and by which attribute.
_REFERENCE: Final = {"entry": "uri", "entry-ref": "ref", "external": "anchor"}


def _validate_members(one: Element, path: str) -> None:
    """The constraints of RFC 4826 section 3.4.5 among the children of one list."""
    for local, attribute in (("list", "name"), *_REFERENCE.items()):
        _expect_unique(one, local, attribute, path)
    for reference in one.find_all(f"{{{LISTS}}}entry-ref"):
        parts = _uri_parts(reference.get("ref"))
        if parts.scheme or parts.netloc or parts.path.startswith("/") or not parts.path:
            raise Conflict("constraint-failure", "the ref of an entry-ref is not a relative path")
    for external in one.find_all(f"{{{LISTS}}}external"):
        parts = _uri_parts(external.get("anchor"))
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise Conflict("constraint-failure", "the anchor of an external is not an absolute HTTP URI")


def _uri_parts(text: str) -> SplitResult:
    """The parts of a URI that may have been folded; of what is none, no parts."""
    try:
        return urlsplit("".join(text.split()))
    except ValueError:  # brackets that hold no IPv6 address
        return urlsplit("")


def _walk_lists(parent: Element, path: str) -> Iterator[tuple[str, Element]]:
    """Every list below ``parent`` with a node selector that finds it."""
    for index, one in enumerate(parent.find_all(f"{{{LISTS}}}list"), 1):
        below = f"{path}/list[{index}]"
        yield below, one
        yield from _walk_lists(one, below)


def _expect(is_so: bool, phrase: str) -> None:
    if not is_so:
        raise Conflict("schema-validation-error", phrase)


def _expect_content(element: Element, attributes: frozenset[str], namespace: str, *, is_open: bool = True) -> None:
    """No text beside the elements, and no attributes but these and, if ``is_open``, those of other namespaces."""
    _expect(not element.text.strip(_SPACE), f"{element.local} holds text")
    for name in element.attributes:
        foreign = name.startswith("{") and not name.startswith(f"{{{namespace}}}")
        is_known = name in attributes or name.startswith(f"{{{_XSI}}}") or (is_open and foreign)
        _expect(is_known, f"{element.local} has an attribute that is not known")


def _expect_text(element: Element, attributes: frozenset[str]) -> None:
    is_plain = not any(True for _ in element.elements()) and element.attributes.keys() <= attributes
    _expect(is_plain, f"{element.local} is not plain text")


def _own_then_others(element: Element, namespace: str) -> tuple[list[Element], list[Element]]:
    """The children of our namespace, which come first, and those of others'."""
    children = list(element.elements())
    own = [child for child in children if child.namespace in (namespace, "")]
    _expect(children[: len(own)] == own, f"{element.local} holds its elements in another order")
    _expect(all(child.namespace for child in own), f"{element.local} holds an element of no namespace")
    return own, children[len(own) :]


def _expect_unique(parent: Element, local: str, attribute: str, path: str, namespace: str = LISTS) -> None:
    """By case-sensitive comparison, among the children of one parent."""
    seen: set[str] = set()
    fields = []
    for index, child in enumerate(parent.find_all(f"{{{namespace}}}{local}"), 1):
        value = child.attributes.get(attribute)
        if value in seen:
            fields.append(quote(f"{path}/{local}[{index}]/@{attribute}", safe="/@*"))
        elif value is not None:
            seen.add(value)
    if fields:
        raise Conflict("uniqueness-failure", f"there are two {local} with one {attribute}", fields=fields)


# --- whose, and which -----------------------------------------------------------------------------------------------


def owner_of(user: str) -> Address | None:
    """The account an XCAP User Identifier means: ``sip:alice@example.org``, other schemes, or without one."""
    try:
        return Address.from_any(user if ":" in user.partition("@")[0] else f"im:{user}").folded()
    except AddressError:
        return None


def _usages() -> Iterator[Usage]:
    rules = (POLICY_TYPE, PRES_RULES, "pres-rules/index", RULE_LIMITS, _validate_rules)
    yield Usage("pres-rules", *rules)
    # OMA Presence XDM calls the usage and its one document by names of its own; the rules are the same.
    yield Usage("org.openmobilealliance.pres-rules", *rules, names=frozenset({"index", "pres-rules"}))
    yield Usage("resource-lists", LISTS_TYPE, LISTS, "resource-lists/index", LIST_LIMITS, _validate_lists)
    yield Usage("rls-services", SERVICES_TYPE, SERVICES, "rls-services/index", LIST_LIMITS, _validate_services)
    hard_state = ("pidf-manipulation/index", PIDF_LIMITS, _validate_presence)
    yield Usage("pidf-manipulation", PIDF_TYPE, PIDF, *hard_state)


USAGES: Final = {usage.auid: usage for usage in _usages()}


def service_addresses(document: Document) -> list[Address | None]:
    """What the services of an rls-services document are to be called, None for what is no address."""
    return [owner_of(service.get("uri")) for service in document.root.element.elements()]


def capabilities() -> bytes:
    """The document of xcap-caps (RFC 4825 section 12)."""
    auids = Element(f"{{{CAPS}}}auids")
    for auid in ("xcap-caps", *USAGES):
        auids.append(Element(f"{{{CAPS}}}auid", children=[auid]))
    namespaces = Element(f"{{{CAPS}}}namespaces")
    common = "urn:ietf:params:xml:ns:common-policy"
    for namespace in sorted({CAPS, common, *(usage.namespace for usage in USAGES.values())}):
        namespaces.append(Element(f"{{{CAPS}}}namespace", children=[namespace]))
    root = Element(f"{{{CAPS}}}xcap-caps", children=[auids, Element(f"{{{CAPS}}}extensions"), namespaces])
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + serialize(root)
