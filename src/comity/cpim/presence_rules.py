"""What a watcher may see: presence rules (RFC 5025), and the filter that makes it so.

Place on the path: step 5 of a subscribe (``sub_handling``) and step 6 of every notify (``filter_document``). Rules are parsed
when they are stored, asked at each subscribe and change, and applied to the composed document: an occurrence-id is an id as
watchers see it. Whatever no rule grants is not there, extensions and locations included (N-23).

Filtering twice is filtering once (section 4) with one exception that RFC 5025 itself makes: an occurrence granted by its
class, where the class is not granted to be shown, is not found by it again. We hide the class. So filter once, from the
composed document. One that is granted whole stays what it is, signature and all; otherwise its signature is gone (PRES-22).
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import IntEnum
from typing import Final

from comity.cpim.common_policy import RULE_LIMITS, Question, Rule, RuleSet, canonical
from comity.cpim.presence import Component, PresenceDocument, PresenceLimits, PresenceTuple
from comity.cpim.presence_writer import build, is_writable
from comity.cpim.rpid import DEVICE_ID, RPID, Place, read_rpid
from comity.errors import MalformedMessage
from comity.xml import Element, XmlLimits

PRES_RULES: Final = "urn:ietf:params:xml:ns:pres-rules"
_SPACE: Final = " \t\r\n"
#: A filtered document says less than the one before it, but our way to write namespaces may be the longer one.
_WRITTEN: Final = PresenceLimits(document=1024 * 1024)


class SubHandling(IntEnum):
    """What becomes of a subscription (section 3.2.1); the greatest granted counts."""

    BLOCK = 0
    CONFIRM = 10
    POLITE_BLOCK = 20
    ALLOW = 30


class UserInputGrant(IntEnum):
    """How much of user-input is shown (section 3.3.2.12)."""

    FALSE = 0
    BARE = 10
    THRESHOLDS = 20
    FULL = 30


#: Permission for an element, wherever it stands (section 3.3.2); all others are unknown attributes.
_PERMISSION: Final[dict[str, str]] = {
    **{
        f"{{{RPID}}}{name}": f"provide-{name}"
        for name in (
            *("activities", "class", "mood", "place-is", "place-type", "privacy", "relationship", "sphere"),
            *("status-icon", "time-offset"),
        )
    },
    DEVICE_ID: "provide-deviceID",
}
_BOOLEANS: Final = frozenset({*_PERMISSION.values(), "provide-note"})
_SERVICE_CLASS: Final = f"{{{RPID}}}service-class"
_USER_INPUT: Final = f"{{{RPID}}}user-input"
#: Which members a set of occurrences may have, and the one that stands for all (section 3.3.1).
_SETS: Final = {
    "provide-devices": ("all-devices", frozenset({"class", "occurrence-id", "deviceID"})),
    "provide-persons": ("all-persons", frozenset({"class", "occurrence-id"})),
    "provide-services": ("all-services", frozenset({"class", "occurrence-id", "service-uri", "service-uri-scheme"})),
}

Members = frozenset[tuple[str, str]]
_ALL: Final[Members] = frozenset({("all", "")})
_NONE: Final[Members] = frozenset()


@dataclass(frozen=True, slots=True)
class Permissions:
    """What is granted to one watcher; nothing by default (ACL-1)."""

    sub_handling: SubHandling = SubHandling.BLOCK
    devices: Members = _NONE
    """(kind, value) pairs; ("all", "") for all of them."""
    persons: Members = _NONE
    services: Members = _NONE
    attributes: frozenset[str] = frozenset()
    """Names of the boolean permissions."""
    user_input: UserInputGrant = UserInputGrant.FALSE
    unknown: frozenset[str] = frozenset()
    """Attributes by Clark name."""
    all_attributes: bool = False

    def __or__(self, other: Permissions) -> Permissions:
        """Both together: maximum, union, or (RFC 4745 section 10.2)."""
        return Permissions(
            max(self.sub_handling, other.sub_handling),
            self.devices | other.devices,
            self.persons | other.persons,
            self.services | other.services,
            self.attributes | other.attributes,
            max(self.user_input, other.user_input),
            self.unknown | other.unknown,
            self.all_attributes or other.all_attributes,
        )

    @property
    def grants_everything(self) -> bool:
        """True if the filter would change nothing, whatever the document."""
        return self.all_attributes and all(granted >= _ALL for granted in (self.devices, self.persons, self.services))


#: What a watcher gets whom the presentity approved without saying more (a contact list, an answered request).
EVERYTHING: Final = Permissions(SubHandling.ALLOW, _ALL, _ALL, _ALL, all_attributes=True)


@dataclass(frozen=True, slots=True)
class PresenceRules:
    """A rule set with what each of its rules grants; made by ``parse``."""

    rule_set: RuleSet
    granted: tuple[tuple[Rule, Permissions], ...]

    @classmethod
    def parse(cls, raw: bytes, *, charset: str = "", limits: XmlLimits = RULE_LIMITS) -> PresenceRules:
        """Read a presence authorization document; raises MalformedMessage for what its schemas do not allow."""
        rule_set = RuleSet.parse(raw, charset=charset, limits=limits)
        return cls(rule_set, tuple((rule, _permissions(rule.grants)) for rule in rule_set.rules))

    def permissions(self, question: Question) -> Permissions:
        """What all the rules that hold grant together."""
        return _together(granted for rule, granted in self.granted if rule.holds(question))


def current_sphere(documents: Iterable[PresenceDocument], now: datetime) -> str:
    """The presentity's sphere by its published documents; "" if none says one or they disagree (section 3.1.2, ACL-6)."""
    said = {
        sphere.lower()
        for document in documents
        for person in document.persons
        if (sphere := read_rpid(person.extensions, Place.PERSON, now).sphere)
    }
    return said.pop() if len(said) == 1 else ""


def filter_document(document: PresenceDocument, granted: Permissions) -> PresenceDocument:
    """The document as a watcher with these permissions may see it; itself if all is granted."""
    if granted.grants_everything:
        return document
    tuples = [_tuple(one, granted) for one in document.tuples if one.id and _is_service_granted(one, granted)]
    return build(
        document.entity,
        [one for one in tuples if one.basic_status is not None or one.status_extensions],
        # Notes of the root are those of persons (RFC 4479 section 5); other elements there are nobody's attribute.
        notes=document.notes if _is_provided("provide-note", granted) and granted.persons >= _ALL else (),
        persons=[_component(one, granted) for one in document.persons if one.id and _is_granted(one, granted.persons)],
        devices=[_component(one, granted) for one in document.devices if one.id and _is_device_granted(one, granted)],
        extensions=[element for element in document.extensions if granted.all_attributes and is_writable(element)],
        limits=_WRITTEN,
    )


# --- which occurrences -------------------------------------------------------------------------------------------------


def _is_granted(part: PresenceTuple | Component, members: Members) -> bool:
    if members >= _ALL or ("occurrence-id", part.id) in members:
        return True
    classes = [e.text.strip(_SPACE) for e in part.extensions if e.name == f"{{{RPID}}}class"]
    return len(classes) == 1 and ("class", classes[0]) in members


def _is_device_granted(device: Component, granted: Permissions) -> bool:
    if not device.device_id:
        return False  # invalid, so there is no way to write it
    return _is_granted(device, granted.devices) or ("deviceID", canonical(device.device_id)) in granted.devices


def _is_service_granted(one: PresenceTuple, granted: Permissions) -> bool:
    scheme = one.contact.partition(":")[0] if ":" in one.contact else ""
    return (
        _is_granted(one, granted.services)
        or ("service-uri", canonical(one.contact)) in granted.services
        or ("service-uri-scheme", scheme) in granted.services
    )


# --- which attributes --------------------------------------------------------------------------------------------------

#: Attributes of user-input that stay (section 3.3.2.12; X13: last-input is what it calls "since").
_STAYING: Final = {UserInputGrant.BARE: frozenset[str](), UserInputGrant.THRESHOLDS: frozenset({"idle-threshold"})}


def _tuple(one: PresenceTuple, granted: Permissions) -> PresenceTuple:
    return replace(
        one,
        notes=one.notes if _is_provided("provide-note", granted) else (),
        status_extensions=_attributes(one.status_extensions, granted),
        extensions=_attributes(one.extensions, granted, _SERVICE_CLASS),
    )


def _component(one: Component, granted: Permissions) -> Component:
    return replace(
        one,
        notes=one.notes if _is_provided("provide-note", granted) else (),
        extensions=_attributes(one.extensions, granted),
    )


def _attributes(elements: Iterable[Element], granted: Permissions, always: str = "") -> tuple[Element, ...]:
    kept: list[Element] = []
    for element in elements:
        if element.name == _USER_INPUT and not granted.all_attributes:
            if granted.user_input is not UserInputGrant.FALSE:
                kept.append(_user_input(element, granted.user_input))
        elif element.name == always or _is_attribute_granted(element, granted):
            kept.append(element)
    return tuple(element for element in kept if is_writable(element))


def _is_attribute_granted(element: Element, granted: Permissions) -> bool:
    permission = _PERMISSION.get(element.name)
    if permission is not None:
        return _is_provided(permission, granted)
    return granted.all_attributes or element.name in granted.unknown


def _is_provided(permission: str, granted: Permissions) -> bool:
    return granted.all_attributes or permission in granted.attributes


def _user_input(element: Element, grant: UserInputGrant) -> Element:
    staying = _STAYING.get(grant)
    if staying is None:
        return element
    return Element(element.name, {k: v for k, v in element.attributes.items() if k in staying}, element.children)


# --- reading permissions -------------------------------------------------------------------------------------------------


def _together(all_granted: Iterable[Permissions]) -> Permissions:
    together = Permissions()
    for granted in all_granted:
        together |= granted
    return together


def _permissions(grants: Sequence[Element]) -> Permissions:
    """What one rule grants; elements of other namespaces are other people's permissions (section 8)."""
    names: set[str] = set()
    granted = Permissions()
    for element in grants:
        if element.namespace != PRES_RULES:
            continue
        if element.local in names and element.local != "provide-unknown-attribute":
            raise MalformedMessage(f"{element.local} stands twice in one rule")
        names.add(element.local)
        granted |= _permission(element)
    return granted


def _permission(element: Element) -> Permissions:
    name = element.local
    if name == "sub-handling":
        return Permissions(sub_handling=_HANDLING[_one_of(element, _HANDLING)])
    if name == "provide-user-input":
        return Permissions(user_input=_INPUT[_one_of(element, _INPUT)])
    if name in _SETS:
        members = _members(element)
        return {
            "provide-devices": Permissions(devices=members),
            "provide-persons": Permissions(persons=members),
            "provide-services": Permissions(services=members),
        }[name]
    if name == "provide-all-attributes":
        return Permissions(all_attributes=not _text(element) or _boolean(element))
    if name == "provide-unknown-attribute":
        namespace, local = element.get("ns").strip(_SPACE), element.get("name").strip(_SPACE)
        if not local or ":" in local:
            raise MalformedMessage("provide-unknown-attribute does not name an attribute")
        clark = f"{{{namespace}}}{local}" if namespace else local
        return Permissions(unknown=frozenset({clark}) if _boolean(element) else frozenset())
    if name in _BOOLEANS:
        return Permissions(attributes=frozenset({name}) if _boolean(element) else frozenset())
    return Permissions()


_HANDLING: Final = {value.name.lower().replace("_", "-"): value for value in SubHandling}
_INPUT: Final = {value.name.lower(): value for value in UserInputGrant}


def _text(element: Element) -> str:
    return element.text.strip(_SPACE)


def _one_of(element: Element, values: Container[str]) -> str:
    text = _text(element)
    if text not in values:
        raise MalformedMessage(f"{element.local} has a value it cannot have")
    return text


def _boolean(element: Element) -> bool:
    return _one_of(element, ("true", "1", "false", "0")) in ("true", "1")


def _members(element: Element) -> Members:
    for_all, kinds = _SETS[element.local]
    children = [child for child in element.elements() if child.namespace == PRES_RULES]
    if any(child.local == for_all for child in children):
        return _ALL
    if any(child.local not in kinds for child in children):
        raise MalformedMessage(f"{element.local} has a member it cannot have")
    return frozenset((child.local, _value(child)) for child in children)


def _value(member: Element) -> str:
    text = _text(member)
    if not text:
        raise MalformedMessage(f"{member.local} is empty")
    return canonical(text) if member.local in ("deviceID", "service-uri") else text
