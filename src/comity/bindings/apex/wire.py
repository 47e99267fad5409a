"""The core of APEX between BEEP payloads and the values of ``elements.py`` (RFC 3340 sections 4 and 9.1).

Place on the path: steps 2 and 9. Reading checks against the DTD and answers with a WireError that carries the reply's code; content
and the contents of options are slices of what came, octet for octet. Writing gives the RFC's own spelling.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final, Literal, cast, overload
from urllib.parse import unquote

from comity.bindings.apex import grammar
from comity.bindings.apex.elements import (
    Attach,
    Bind,
    Content,
    CoreElement,
    Data,
    DataHopping,
    DataTiming,
    Error,
    Inline,
    Ok,
    Option,
    Originator,
    Part,
    Recipient,
    TargetHop,
    Terminate,
)
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.grammar import WireError, check, shape
from comity.bindings.apex.multipart import cid_of, cid_url, join_payload, split_payload
from comity.xml import XML_LANG, Element, LocatedElement, escape_attribute, serialize

PROFILE: Final = "http://iana.org/beep/APEX"
_HEAD: Final = b"Content-Type: application/beep+xml\r\n\r\n"
_SMALL: Final = 128

_SHAPES: Final = {
    "attach": shape("endpoint transID"),
    "bind": shape("relay transID"),
    "terminate": shape("", "code xml:lang transID", has_text=True),
    "data": shape("content"),
    "ok": shape(),
    "error": shape("code", "xml:lang", has_text=True),
}
_IDENTITY: Final = shape("identity")
_OPTION: Final = shape("", "internal external targetHop mustUnderstand transID localize", has_text=True)
_DATA_CONTENT: Final = shape("Name")
_TIMING: Final = shape("", "noLaterThan returnTrip reportAfter reportErrors")
_HOPPING: Final = shape("", "noMoreThan reportErrors")


# --- reading ---------------------------------------------------------------------------------------------------------


def read_message(payload: bytes) -> CoreElement:
    """Read a BEEP payload: entity headers, an empty line, octets.

    Raises:
        WireError: 500 not well formed, 501 not valid, 504 a transfer encoding, 554 over a limit; ``SILENTLY`` for a document
            type declaration.
    """
    return _read_small(payload) if len(payload) <= _SMALL else _read(payload)


def read_ride(octets: bytes) -> CoreElement:
    """Read what rides on ``start`` or its ``profile`` reply (RFC 3340 section 4.2): the XML alone. Raises WireError."""
    return _element(octets, None)


@lru_cache(maxsize=32)
def _read_small(payload: bytes) -> CoreElement:
    """Mostly ``ok``, once for each data."""
    return _read(payload)


def _read(payload: bytes) -> CoreElement:
    return _element(*split_payload(payload))


def _element(octets: bytes, part: Part | None) -> CoreElement:
    root, places = _tree(octets)
    allowed = _SHAPES.get(root.name)
    if allowed is None:
        raise WireError("the element is none of APEX's")
    check(root, allowed)
    if root.name == "data":
        return _data(root, places, octets, part)
    if part is not None:
        raise WireError("there are parts that nothing refers to")
    get = root.get
    if root.name == "attach":
        options = _options(root, places, octets)
        return Attach(grammar.endpoint(get("endpoint")), grammar.trans_id(get("transID")), options)
    if root.name == "bind":
        return Bind(_domain(get("relay")), grammar.trans_id(get("transID")), _options(root, places, octets))
    grammar.leaf(root)
    if root.name == "terminate":
        code = grammar.code(get("code", "250"))
        return Terminate(grammar.number(get("transID", "0")), code, root.text, root.language)
    if root.name == "error":
        return Error(grammar.code(get("code")), root.text, root.language)
    return Ok()


def _tree(octets: bytes) -> tuple[Element, LocatedElement | None]:
    """The tree, with places if anything in it may have to be cut out."""
    if b"</option" not in octets and b"</data-content" not in octets:
        return grammar.document(octets), None
    root = grammar.located(octets)
    if any(one.namespaces for one in (root, *root.children)):
        # Content is cut out, so it must not need what is declared around it; the DTD allows no declaration there anyway.
        raise WireError("a namespace is declared outside the content")
    return root.element, root


def _children(root: Element, places: LocatedElement | None) -> list[tuple[Element, LocatedElement | None]]:
    if places is None:
        return [(child, None) for child in root.elements()]
    return [(child.element, child) for child in places.children]


def _domain(relay: str) -> str:
    """A domain is read as that of an endpoint."""
    return grammar.endpoint(f"relay@{relay}").domain


def _options(root: Element, places: LocatedElement | None, octets: bytes) -> tuple[Option, ...]:
    return tuple(_option(*child, octets) for child in _children(root, places))


def _option(element: Element, place: LocatedElement | None, octets: bytes) -> Option:
    if element.name != "option":
        raise WireError("an element stands where only an option can")
    check(element, _OPTION)
    get = element.get
    internal, external = get("internal"), get("external")
    if bool(internal) is bool(external):
        raise WireError("an option has exactly one of internal and external")
    hop = get("targetHop", "final")
    if hop not in ("this", "final", "all"):
        raise WireError("targetHop is this, final or all")
    if place is not None and place.namespaces:
        raise WireError("a namespace is declared outside the content")
    return Option(
        internal and grammar.nmtoken(internal),
        external and grammar.absolute_uri(external),
        cast("TargetHop", hop),
        grammar.boolean(get("mustUnderstand", "false")),
        grammar.trans_id(get("transID")) if "transID" in element.attributes else 0,
        get("localize", "i-default"),
        octets[place.content : place.content_end] if place is not None else b"",
    )


def _data(root: Element, places: LocatedElement | None, octets: bytes, part: Part | None) -> Data:
    """``(originator,recipient+,option*,data-content?)``"""
    children = _children(root, places)
    order = [
        {"originator": 0, "recipient": 1, "option": 2, "data-content": 3}.get(child.name, 4) for child, _ in children
    ]
    if order != sorted(order) or order[:2] != [0, 1] or order.count(0) > 1 or order.count(3) > 1 or 4 in order:
        raise WireError("data holds an originator, recipients, options and data-content, in this order")
    named = order.count(1)
    options = tuple(_option(*child, octets) for child, kind in zip(children, order, strict=True) if kind == 2)
    inline = _inline(*children[-1], octets) if order[-1] == 3 else None
    return Data(
        Originator(*_party(*children[0], octets)),
        tuple(Recipient(*_party(*child, octets)) for child in children[1 : 1 + named]),
        _content(root.get("content"), part, inline),
        options,
    )


def _party(element: Element, place: LocatedElement | None, octets: bytes) -> tuple[Endpoint, tuple[Option, ...]]:
    check(element, _IDENTITY)
    if place is not None and place.namespaces:
        raise WireError("a namespace is declared outside the content")
    return grammar.endpoint(element.get("identity")), _options(element, place, octets)


def _inline(element: Element, place: LocatedElement | None, octets: bytes) -> Inline:
    check(element, _DATA_CONTENT)
    if place is None or len(place.children) != 1:
        raise WireError("data-content holds exactly one element")
    one = place.children[0]
    return Inline(octets[one.start : one.end], element.get("Name"))


def _content(uri: str, part: Part | None, inline: Inline | None) -> Content:
    """What the ``content`` attribute means: nothing outside this payload (P-27)."""
    if uri.startswith("#"):
        if inline is not None and part is None and unquote(uri[1:]) == inline.name:
            return inline
    elif part is not None and inline is None and cid_of(uri) == part.content_id != "":
        return part
    raise WireError("content does not name the one content that came along")


@overload
def read_option_content(option: Option, name: Literal["dataTiming"]) -> DataTiming: ...
@overload
def read_option_content(option: Option, name: Literal["dataHopping"]) -> DataHopping: ...
def read_option_content(option: Option, name: str) -> DataTiming | DataHopping:
    """The one element inside an option of the party pack (RFC 3342). Raises WireError."""
    element = grammar.document(option.content.strip(b" \t\r\n"))
    if element.name != name:
        raise WireError(f"the option does not hold {name}")
    check(element, _TIMING if name == "dataTiming" else _HOPPING)
    grammar.leaf(element)
    get = element.get
    errors = grammar.boolean(get("reportErrors", "false"))
    if name == "dataHopping":
        return DataHopping(grammar.number(get("noMoreThan", "0"), 0, 255), errors)
    later, trip, after = (grammar.number(get(key, "0")) for key in ("noLaterThan", "returnTrip", "reportAfter"))
    return DataTiming(later, trip, after, errors)


# --- writing ---------------------------------------------------------------------------------------------------------


def write_message(element: CoreElement) -> bytes:
    """The BEEP payload. Raises LocalProtocolError for what XML or MIME cannot hold."""
    if isinstance(element, Ok):
        return b"Content-Type: application/beep+xml\r\n\r\n<ok />"
    if isinstance(element, Data):
        control = _write_data(element)
        return join_payload(control, element.content) if isinstance(element.content, Part) else _HEAD + control
    return _HEAD + write_ride(element)


def write_ride(element: Attach | Bind | Terminate | Ok | Error) -> bytes:
    """The XML alone, as it rides on ``start`` and its reply."""
    if isinstance(element, Attach):
        return _with_options(
            "attach", {"endpoint": str(element.endpoint), "transID": str(element.trans_id)}, element.options
        )
    if isinstance(element, Bind):
        return _with_options("bind", {"relay": element.relay, "transID": str(element.trans_id)}, element.options)
    if isinstance(element, Ok):
        return b"<ok />"
    attributes = {"code": str(element.code)}
    if isinstance(element, Terminate):
        attributes = {"transID": str(element.trans_id)} | (attributes if element.code != 250 else {})
    if element.language:
        attributes[XML_LANG] = element.language
    name = "error" if isinstance(element, Error) else "terminate"
    return serialize(Element(name, attributes, [element.text] if element.text else []))


def _write_data(data: Data) -> bytes:
    content = data.content
    inside = [_with_options("originator", {"identity": str(data.originator.identity)}, data.originator.options)]
    inside += [_with_options("recipient", {"identity": str(one.identity)}, one.options) for one in data.recipients]
    inside += [_write_option(option) for option in data.options]
    if isinstance(content, Part):
        return _tag("data", {"content": cid_url(content.content_id)}, inside)
    inside.append(_tag("data-content", {"Name": content.name}, [content.octets]))
    return _tag("data", {"content": "#" + content.name}, inside)


def _with_options(name: str, attributes: dict[str, str], options: Iterable[Option]) -> bytes:
    return _tag(name, attributes, [_write_option(option) for option in options])


def _write_option(option: Option) -> bytes:
    attributes = {"internal": option.internal} if option.internal else {"external": option.external}
    if option.target_hop != "final":
        attributes["targetHop"] = option.target_hop
    if option.must_understand:
        attributes["mustUnderstand"] = "true"
    if option.trans_id:
        attributes["transID"] = str(option.trans_id)
    if option.localize != "i-default":
        attributes["localize"] = option.localize
    return _tag("option", attributes, [option.content] if option.content else [])


def _tag(name: str, attributes: dict[str, str], inside: list[bytes]) -> bytes:
    """An element around octets that are XML already: ``serialize`` would have to make them anew."""
    written = "".join(f" {key}='{escape_attribute(value)}'" for key, value in attributes.items())
    if not inside:
        return f"<{name}{written} />".encode()
    return b"".join((f"<{name}{written}>".encode(), *inside, f"</{name}>".encode()))


def write_option_content(value: DataTiming | DataHopping) -> bytes:
    """What goes into ``Option.content``."""
    if isinstance(value, DataTiming):
        numbers = {
            "noLaterThan": value.no_later_than,
            "returnTrip": value.return_trip,
            "reportAfter": value.report_after,
        }
        name = "dataTiming"
    else:
        numbers, name = {"noMoreThan": value.no_more_than}, "dataHopping"
    attributes = {key: str(amount) for key, amount in numbers.items() if amount}
    if value.report_errors:
        attributes["reportErrors"] = "true"
    return _tag(name, attributes, [])
