"""Parts of a document: read, put and take away, octet by octet (RFC 4825 sections 6.3 and 8.2 to 8.4).

Place on the path: beside it; ``resources.py`` hands in a document and a node selector. Whatever stands outside the part keeps its
octets. A part is put only if the same selector finds it afterwards (GET(PUT(x)) = x), and taken away only if it then finds
nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from comity.errors import RemoteProtocolError
from comity.xcap.errors import Conflict, Refused
from comity.xcap.uri import NodeSelector, Step
from comity.xml import XML_NAMESPACE, LocatedAttribute, LocatedElement, XmlLimits, escape_attribute, locate

ELEMENT_TYPE: Final = "application/xcap-el+xml"
ATTRIBUTE_TYPE: Final = "application/xcap-att+xml"
NAMESPACES_TYPE: Final = "application/xcap-ns+xml"

_SPACE: Final = b" \t\r\n"
_VALUE: Final = re.compile(r"(?:[^<&]|&(?:#[0-9]+|#x[0-9A-Fa-f]+|lt|gt|amp|quot|apos);)*")


@dataclass(frozen=True, slots=True)
class Document:
    """A document and the places in it."""

    octets: bytes
    root: LocatedElement

    @classmethod
    def read(cls, octets: bytes, limits: XmlLimits) -> Document:
        """Raises Conflict (not-well-formed, not-utf-8), or Refused 413 for what is too much."""
        try:
            return cls(octets, locate(octets, limits))
        except RemoteProtocolError as error:
            if error.hint == "policy-violation":
                raise Refused(413, error.reason) from None
            if error.hint == "unsupported-encoding" or not _is_utf8(octets):
                raise Conflict("not-utf-8", "the document is not in UTF-8") from None
            raise Conflict("not-well-formed", str(error)) from None


@dataclass(frozen=True, slots=True)
class Change:
    """A document as it would be with one part put or taken away."""

    document: Document
    is_new: bool = False
    """The part was not there before."""


# --- reading ---------------------------------------------------------------------------------------------------


def read_part(document: Document, selector: NodeSelector) -> tuple[str, bytes] | None:
    """Media type and octets of a part; None if there is none, or more than one."""
    element = _element(document, selector.steps)
    if element is None:
        return None
    if selector.is_namespaces:
        return NAMESPACES_TYPE, _namespaces(element)
    if selector.attribute is None:
        return ELEMENT_TYPE, document.octets[element.start : element.end]
    attribute = _attribute(element, selector.attribute)
    if attribute is None:
        return None
    return ATTRIBUTE_TYPE, document.octets[attribute.value_start - 1 : attribute.value_end + 1]


def _namespaces(element: LocatedElement) -> bytes:
    """The bindings in scope, on an element of the same name (section 10)."""
    return b"<" + element.raw_name + _declarations(element.namespaces) + b"/>"


def _declarations(namespaces: dict[str, str]) -> bytes:
    return "".join(
        f' xmlns{":" + prefix if prefix else ""}="{escape_attribute(uri)}"'
        for prefix, uri in sorted(namespaces.items())
    ).encode()


def _matching(siblings: list[LocatedElement], step: Step) -> list[LocatedElement]:
    """The elements a step selects among ``siblings``, predicates in their order (section 6.3)."""
    found = siblings if step.name is None else [one for one in siblings if one.name == step.name]
    if step.position is not None:
        found = found[step.position - 1 : step.position] if step.position else []
    if step.attribute is not None:
        name, value = step.attribute
        found = [one for one in found if one.element.attributes.get(name) == value]
    return found


def _walked(document: Document, steps: tuple[Step, ...]) -> tuple[list[LocatedElement], int]:
    """The elements on the way down as far as each step selects exactly one, and how many the last step tried selects."""
    way: list[LocatedElement] = []
    siblings = [document.root]
    for step in steps:
        found = _matching(siblings, step)
        if len(found) != 1:
            return way, len(found)
        way.append(found[0])
        siblings = found[0].children
    return way, 1


def _element(document: Document, steps: tuple[Step, ...]) -> LocatedElement | None:
    way, _ = _walked(document, steps)
    return way[-1] if len(way) == len(steps) else None


def find_element(document: Document, selector: NodeSelector) -> LocatedElement | None:
    """The element a selector finds; None if there is none, more than one, or it ends in something else."""
    is_element = selector.attribute is None and not selector.is_namespaces
    return _element(document, selector.steps) if is_element else None


def _attribute(element: LocatedElement, name: str) -> LocatedAttribute | None:
    return next((one for one in element.attributes if one.name == name), None)


# --- putting ----------------------------------------------------------------------------------------------------


def put_element(document: Document, selector: NodeSelector, body: bytes, uri: str, limits: XmlLimits) -> Change:
    """Put an element in the place of the one selected, or where section 8.2.3 wants a new one.

    Args:
        document: as it is.
        selector: which element.
        body: the element; white space around it is not taken.
        uri: the document's, for the conflict report.
        limits: for the document as it becomes.

    Raises:
        Conflict: no-parent, not-xml-frag, not-utf-8, cannot-insert.
        Refused: 413.
    """
    way, count = _walked(document, selector.steps)
    last = len(selector.steps) - 1
    if len(way) < last:
        raise _no_parent(selector, len(way), uri)
    parent = way[last - 1] if last else None
    fragment, name = _fragment(body, parent.namespaces if parent else {}, limits)
    octets = document.octets
    if len(way) > last:
        start, end, before, after = way[last].start, way[last].end, b"", b""
    elif parent is None or count > 1:
        raise Conflict("cannot-insert", "the URI would not select the element alone")
    else:
        start, before, after = _place(document, parent, selector.steps[last], name)
        end = start + 2 if before else start  # the "/>" that is opened up
    new = octets[:start] + before + fragment + after + octets[end:]
    begin = start + len(before)
    refusal = Conflict("cannot-insert", "the URI would not select the element that was put")
    try:
        changed = Document.read(new, limits)
    except Conflict:
        raise refusal from None
    found = _element(changed, selector.steps)
    if found is None or (found.start, found.end) != (begin, begin + len(fragment)):
        raise refusal
    return Change(changed, is_new=len(way) == last)


def _no_parent(selector: NodeSelector, steps: int, uri: str) -> Conflict:
    ancestor = f"{uri}/~~/{selector.written(steps)}" if steps else uri
    return Conflict("no-parent", "there is no such parent element", ancestor=ancestor)


def _fragment(body: bytes, namespaces: dict[str, str], limits: XmlLimits) -> tuple[bytes, str]:
    """The one element of ``body``, read where ``namespaces`` are in scope, and its name."""
    if not _is_utf8(body):
        raise Conflict("not-utf-8", "the element is not in UTF-8")
    head = b"<x" + _declarations(namespaces) + b">"
    try:
        root = locate(head + body + b"</x>", limits)
    except RemoteProtocolError as error:
        if error.hint == "policy-violation":
            raise Refused(413, error.reason) from None
        raise Conflict("not-xml-frag", "the body is not one well-formed element") from None
    if len(root.children) != 1:
        raise Conflict("not-xml-frag", "the body is not exactly one element")
    start, end = root.children[0].start - len(head), root.children[0].end - len(head)
    if (body[:start] + body[end:]).strip(_SPACE):
        raise Conflict("not-xml-frag", "there is more in the body than one element")
    return body[start:end], root.children[0].name


def _place(document: Document, parent: LocatedElement, step: Step, name: str) -> tuple[int, bytes, bytes]:
    """Where a new child goes (section 8.2.3), and what is written before and after it if ``parent`` was an empty-element tag."""
    siblings = parent.children
    same = siblings if step.name is None else [one for one in siblings if one.name == step.name]
    if step.position is None:
        earlier = [one for one in siblings if one.name == name]
        return (earlier[-1].end, b"", b"") if earlier else _last(parent)
    if step.position == 0 or step.position > len(same) + 1:
        raise Conflict("cannot-insert", "there are too few elements before that position")
    if step.position == 1:
        return (same[0].start, b"", b"") if same else _last(parent)
    return same[step.position - 2].end, b"", b""


def _last(parent: LocatedElement) -> tuple[int, bytes, bytes]:
    if parent.is_empty_tag:
        return parent.end - 2, b">", b"</" + parent.raw_name + b">"
    return parent.content_end, b"", b""


def put_attribute(document: Document, selector: NodeSelector, body: bytes, uri: str, limits: XmlLimits) -> Change:
    """Put an attribute's value; a new attribute goes last in its start tag.

    ``body`` is an AttValue, with its quotation marks as RFC 4825 figure 32 has it; COMPAT xcaplib: or without.

    Raises:
        Conflict: no-parent, not-xml-att-value, not-utf-8, cannot-insert.
        Refused: 413.
    """
    assert selector.attribute is not None
    way, _ = _walked(document, selector.steps)
    if len(way) < len(selector.steps):
        raise _no_parent(selector, len(way), uri)
    value = _attribute_value(body)
    octets, element = document.octets, way[-1]
    present = _attribute(element, selector.attribute)
    if present is not None:
        start, end, before = present.value_start - 1, present.value_end + 1, b""
    else:
        start = end = _end_of_attributes(document, element)
        before = b" " + _written_name(element, selector.attribute) + b"="
    new = octets[:start] + before + value + octets[end:]
    try:
        changed = Document.read(new, limits)
    except Conflict:
        raise Conflict("not-xml-att-value", "the body is not the value of an attribute") from None
    found = _element(changed, selector.steps)
    put = _attribute(found, selector.attribute) if found is not None else None
    if put is None or put.value_start != start + len(before) + 1 or put.value_end != put.value_start + len(value) - 2:
        raise Conflict("cannot-insert", "the URI would not select the attribute that was put")
    return Change(changed, is_new=present is None)


def _attribute_value(body: bytes) -> bytes:
    """The value between quotation marks."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise Conflict("not-utf-8", "the value is not in UTF-8") from None
    quote = text[:1] if len(text) > 1 and text[0] == text[-1] in ('"', "'") else ""
    inside = text[1:-1] if quote else text
    if not _VALUE.fullmatch(inside) or (quote and quote in inside):
        raise Conflict("not-xml-att-value", "the body is not the value of an attribute")
    if not quote:
        quote = "'" if '"' in inside and "'" not in inside else '"'
        inside = inside.replace('"', "&quot;") if quote == '"' else inside
    return f"{quote}{inside}{quote}".encode()


def _end_of_attributes(document: Document, element: LocatedElement) -> int:
    """Behind the last thing in the start tag."""
    end = element.content - (2 if element.is_empty_tag else 1)
    return element.start + len(document.octets[element.start : end].rstrip(_SPACE))


def _written_name(element: LocatedElement, name: str) -> bytes:
    namespace, _, local = name[1:].rpartition("}") if name.startswith("{") else ("", "", name)
    if not namespace:
        return local.encode()
    for prefix, uri in {"xml": XML_NAMESPACE, **element.namespaces}.items():
        if prefix and uri == namespace:
            return f"{prefix}:{local}".encode()
    raise Conflict("cannot-insert", "no prefix in scope there stands for the attribute's namespace")


# --- taking away ------------------------------------------------------------------------------------------------


def delete_part(document: Document, selector: NodeSelector, limits: XmlLimits) -> Change | None:
    """Take away an element, white space around it staying, or an attribute; None if it is not there.

    Raises Conflict: cannot-delete, or schema-validation-error for the root.
    """
    element = _element(document, selector.steps)
    if element is None:
        return None
    octets = document.octets
    if selector.attribute is None:
        if element is document.root:
            raise Conflict("schema-validation-error", "a document needs its root element")
        new = octets[: element.start] + octets[element.end :]
    else:
        attribute = _attribute(element, selector.attribute)
        if attribute is None:
            return None
        before = octets[: attribute.start].rstrip(_SPACE)
        new = before + octets[attribute.value_end + 1 :]
    changed = Document.read(new, limits)
    left = _element(changed, selector.steps)
    if left is not None and (selector.attribute is None or _attribute(left, selector.attribute) is not None):
        raise Conflict("cannot-delete", "the URI would then select another one")
    return Change(changed)


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
