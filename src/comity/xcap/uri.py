"""XCAP URIs: which document of whom, and which part of it (RFC 4825 section 6).

Place on the path: beside it; ``handler.py`` hands in the request target as it came, ``selector.py`` takes the node selector.
Nothing is normalized: a segment that is empty, ``.`` or ``..`` names nothing, and a name with a slash in it is no name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from comity.xcap.errors import Refused
from comity.xml import XML_NAMESPACE

LONGEST: Final = 8 * 1024
"""Octets of a URI; the same as web servers take."""
MOST_STEPS: Final = 64
"""Steps of a node selector: no document here is nested deeper."""

_BAD_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_NAME: Final = r"[^\W\d][\w.\-·]*"
_QNAME: Final = rf"(?:{_NAME}:)?{_NAME}"
_STEP: Final = re.compile(
    rf"(?P<name>\*|{_QNAME})(?:\[(?P<position>[0-9]{{1,9}})\])?"
    rf"(?:\[@(?P<attribute>{_QNAME})=(?:\"(?P<double>[^\"<]*)\"|'(?P<single>[^'<]*)')\])?(?=/|\Z)",
)
_ATTRIBUTE: Final = re.compile(rf"@({_QNAME})")
_NAMESPACES: Final = "namespace::*"
_REFERENCE: Final = re.compile(r"&(?:#([0-9]{1,7})|#x([0-9A-Fa-f]{1,6})|(lt|gt|amp|quot|apos));")
_ENTITIES: Final = {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "apos": "'"}
_POINTER_SCHEME: Final = re.compile(rf"\s*({_QNAME})\(")
_PREFIX: Final = re.compile(_NAME)
#: What stands unencoded in the written form of a node selector.
_SAFE: Final = "-._~!$&'()*+,;=:@/"


@dataclass(frozen=True, slots=True)
class Target:
    """What a request is about; all parts decoded."""

    auid: str
    user: str | None
    """The XCAP User Identifier as written; None in the global tree."""
    path: tuple[str, ...]
    """Below the home directory or the global tree; one name for every document there is here."""
    node: str | None
    """The node selector; None for the whole document."""
    bindings: dict[str, str]
    """Namespaces by prefix, from the query (section 6.4)."""
    document_uri: str
    """The document's path as it was written."""

    @property
    def name(self) -> str:
        """``AUID/PATH``: the document within its tree."""
        return "/".join((self.auid, *self.path))


@dataclass(frozen=True, slots=True)
class Step:
    """One location step: which child element."""

    name: str | None
    """Clark name; None for any."""
    position: int | None
    attribute: tuple[str, str] | None
    """Clark name and value it has to have."""
    text: str
    """As written, decoded."""


@dataclass(frozen=True, slots=True)
class NodeSelector:
    """Which element, or what of it."""

    steps: tuple[Step, ...]
    attribute: str | None = None
    """Clark name of the attribute it ends in."""
    is_namespaces: bool = False
    """It ends in ``namespace::*``."""

    def written(self, steps: int) -> str:
        """The first ``steps`` steps, percent-encoded."""
        return quote("/".join(step.text for step in self.steps[:steps]), safe=_SAFE)


def parse_target(raw: str) -> Target:
    """Read the path and query of a request, the XCAP root being ``/``.

    Raises:
        Refused: 400 for what is no URI, 404 for what can name nothing here, 414.
    """
    if len(raw) > LONGEST:
        raise Refused(414, "the URI is too long")
    path, _, query = raw.partition("?")
    if not path.startswith("/") or not raw.isascii():
        raise Refused(400, "the path of a URI is expected, in ASCII")
    segments = path[1:].split("/")
    node: str | None = None
    for index, segment in enumerate(segments):
        if segment.replace("%7E", "~").replace("%7e", "~") == "~~":
            node = _decoded("/".join(segments[index + 1 :]))
            segments = segments[:index]
            break
    decoded = [_decoded(segment) for segment in segments]
    if len(decoded) < 3 or any(_CONTROL.search(text) for text in decoded):
        raise Refused(404, "there is no such document")
    auid, tree, *rest = decoded
    user = rest.pop(0) if tree == "users" else None
    if tree not in ("users", "global") or not rest or user == "":
        raise Refused(404, "there is no such document")
    if any(text in ("", ".", "..") or "/" in text or "\\" in text for text in (auid, *rest)):
        raise Refused(404, "there is no such document")
    return Target(auid, user, tuple(rest), node, _bindings(query), "/" + "/".join(segments))


def read_node_selector(target: Target, default_namespace: str) -> NodeSelector:
    """Read the node selector of ``target``.

    Raises:
        Refused: 404 for an expression that is none of RFC 4825 section 6.3 (section 8: an extension we do not understand), 400
            for a prefix that is not bound.
    """
    assert target.node is not None
    text, position = target.node, 0
    steps: list[Step] = []
    while True:
        rest = text[position:]
        if steps and rest == _NAMESPACES:
            return NodeSelector(tuple(steps), is_namespaces=True)
        attribute = _ATTRIBUTE.fullmatch(rest) if steps else None
        if attribute:
            return NodeSelector(tuple(steps), _expanded(attribute[1], target.bindings, ""))
        found = _STEP.match(text, position)
        if found is None or len(steps) == MOST_STEPS:
            raise Refused(404, "the node selector is not understood")
        steps.append(_step(found, target.bindings, default_namespace))
        position = found.end() + 1
        if found.end() == len(text):
            return NodeSelector(tuple(steps))


def _step(found: re.Match[str], bindings: dict[str, str], default_namespace: str) -> Step:
    name = None if found["name"] == "*" else _expanded(found["name"], bindings, default_namespace)
    attribute = None
    if found["attribute"]:
        value = found["double"] if found["double"] is not None else found["single"]
        attribute = (_expanded(found["attribute"], bindings, ""), _REFERENCE.sub(_referred, value))
    position = int(found["position"]) if found["position"] else None
    return Step(name, position, attribute, found[0])


def _referred(reference: re.Match[str]) -> str:
    decimal, hexadecimal, name = reference.groups()
    if name:
        return _ENTITIES[name]
    code = int(decimal) if decimal else int(hexadecimal, 16)
    return chr(code) if 0 < code < 0x110000 and not 0xD800 <= code < 0xE000 else reference[0]


def _expanded(name: str, bindings: dict[str, str], default_namespace: str) -> str:
    prefix, colon, local = name.rpartition(":")
    if colon and prefix not in bindings:
        raise Refused(400, "the node selector uses a prefix that the query does not bind")
    namespace = bindings[prefix] if colon else default_namespace
    return f"{{{namespace}}}{local}" if namespace else local


def _decoded(text: str) -> str:
    if _BAD_PERCENT.search(text):
        raise Refused(400, "% must be followed by two hexadecimal digits")
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError:
        raise Refused(400, "the percent-encoded octets are not UTF-8") from None


def _bindings(query: str) -> dict[str, str]:
    """The ``xmlns()`` parts of an XPointer; others are ignored (section 6.4)."""
    text, position = _decoded(query), 0
    found = {"xml": XML_NAMESPACE}
    while text[position:].strip():
        scheme = _POINTER_SCHEME.match(text, position)
        if scheme is None:
            raise Refused(400, "the query is not an XPointer expression")
        inside, position = _balanced(text, scheme.end())
        if scheme[1] != "xmlns":
            continue
        prefix, equals, namespace = inside.partition("=")
        prefix = prefix.strip()
        if not equals or not _PREFIX.fullmatch(prefix):
            raise Refused(400, "xmlns() binds no prefix")
        if prefix != "xml":
            found[prefix] = namespace.strip()
    return found


def _balanced(text: str, position: int) -> tuple[str, int]:
    """What stands up to the closing parenthesis, ``^`` escaping (XPointer Framework section 3.1), and the place behind it."""
    depth, taken = 1, list[str]()
    while position < len(text):
        character = text[position]
        position += 1
        if character == "^" and text[position : position + 1] in ("^", "(", ")"):
            character = text[position]
            position += 1
        elif character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
            if not depth:
                return "".join(taken), position
        taken.append(character)
    raise Refused(400, "the query is not an XPointer expression")
