"""Element trees to octets: the only writer of XML.

Place on the path: under step 9. One set of canonical prefixes, chosen by the caller; what XML 1.0 cannot hold is
refused with LocalProtocolError, never mended.
"""

from __future__ import annotations

import re

from comity.errors import LocalProtocolError
from comity.xml.element import XML_LANG, XML_NAMESPACE, CData, Element

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TEXT_SPECIAL = re.compile("[&<>\r]")
_ATTRIBUTE_SPECIAL = re.compile("[&<>'\"\t\n\r]")
_ESCAPES = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    "'": "&apos;",
    '"': "&quot;",
    "\t": "&#9;",
    "\n": "&#10;",
    "\r": "&#13;",
}
_NAME = re.compile(r"[^\W\d][\w.\-·]*")


def _escape_text(text: str) -> str:
    if _FORBIDDEN.search(text):
        raise LocalProtocolError("text holds a character that XML 1.0 does not allow")
    return _TEXT_SPECIAL.sub(lambda m: _ESCAPES[m.group()], text) if _TEXT_SPECIAL.search(text) else text


def escape_attribute(text: str) -> str:
    """``text`` as it stands between quotation marks. Raises LocalProtocolError."""
    if _FORBIDDEN.search(text):
        raise LocalProtocolError("an attribute holds a character that XML 1.0 does not allow")
    return _ATTRIBUTE_SPECIAL.sub(lambda m: _ESCAPES[m.group()], text) if _ATTRIBUTE_SPECIAL.search(text) else text


def _cdata(text: str) -> str:
    if _FORBIDDEN.search(text) or "\r" in text:
        raise LocalProtocolError("a CDATA section cannot hold this text unchanged")
    return "<![CDATA[" + text.replace("]]>", "]]]]><![CDATA[>") + "]]>"


def is_xml_text(text: str) -> bool:
    """True if XML 1.0 can hold every character of ``text``."""
    return _FORBIDDEN.search(text) is None


def serialize(element: Element, default_namespace: str = "", prefixes: dict[str, str] | None = None) -> bytes:
    """Write ``element`` as UTF-8 for a place where ``default_namespace`` and ``prefixes`` are in scope.

    Args:
        element: the tree; names in Clark notation.
        default_namespace: the default namespace in scope ("" none), as on the stream's root.
        prefixes: namespace name to prefix for those declared further out (``stream``).

    Raises:
        LocalProtocolError: a name or text that XML cannot hold.
    """
    parts: list[str] = []
    _write(element, default_namespace, prefixes or {}, parts)
    return "".join(parts).encode("utf-8")


def start_tag(element: Element, default_namespace: str, prefixes: dict[str, str]) -> bytes:
    """Write only the start tag of ``element`` with all declarations on it: the opening of a stream."""
    declared = "".join(f" xmlns:{prefix}='{escape_attribute(uri)}'" for uri, prefix in prefixes.items())
    name = _qualified(element.name, default_namespace, prefixes)
    attributes = "".join(
        f" {'xml:lang' if key == XML_LANG else _plain_name(key)}='{escape_attribute(value)}'"
        for key, value in element.attributes.items()
    )
    return f"<{name} xmlns='{escape_attribute(default_namespace)}'{declared}{attributes}>".encode()


def _plain_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise LocalProtocolError("not an XML name")
    return name


def _qualified(name: str, default_namespace: str, prefixes: dict[str, str]) -> str:
    namespace, _, local = name[1:].rpartition("}") if name.startswith("{") else ("", "", name)
    prefix = prefixes.get(namespace) if namespace != default_namespace else None
    return f"{prefix}:{_plain_name(local)}" if prefix else _plain_name(local)


def _write(element: Element, default_namespace: str, prefixes: dict[str, str], parts: list[str]) -> None:
    name = element.name
    namespace, _, local = name[1:].rpartition("}") if name[:1] == "{" else ("", "", name)
    if not _NAME.fullmatch(local):
        raise LocalProtocolError("not an XML name")
    if namespace == default_namespace:
        parts.append("<" + local)
    elif namespace in prefixes:
        local = prefixes[namespace] + ":" + local
        parts.append("<" + local)
    elif namespace == XML_NAMESPACE:
        # Bound to this prefix for ever; declaring it otherwise is an error (Namespaces in XML section 3).
        local = "xml:" + local
        parts.append("<" + local)
    else:
        default_namespace = namespace
        parts.append(f"<{local} xmlns='{escape_attribute(namespace)}'")
    for key, value in element.attributes.items():
        if key[:1] == "{":
            _write_qualified_attribute(key, value, prefixes, parts)
        elif _NAME.fullmatch(key):
            parts.append(f" {key}='{escape_attribute(value)}'")
        else:
            raise LocalProtocolError("not an XML name")
    if not element.children:
        parts.append("/>")
        return
    parts.append(">")
    for child in element.children:
        if isinstance(child, Element):
            _write(child, default_namespace, prefixes, parts)
        else:
            parts.append(_cdata(child) if isinstance(child, CData) else _escape_text(child))
    parts.append(f"</{local}>")


def _write_qualified_attribute(key: str, value: str, prefixes: dict[str, str], parts: list[str]) -> None:
    namespace, _, local = key[1:].rpartition("}")
    local = _plain_name(local)
    if namespace == XML_NAMESPACE:
        parts.append(f" xml:{local}='{escape_attribute(value)}'")
    elif namespace in prefixes:
        parts.append(f" {prefixes[namespace]}:{local}='{escape_attribute(value)}'")
    else:
        # Declared beside its only use; the number keeps two such attributes of one element apart.
        prefix = f"a{len(parts)}"
        parts.append(f" xmlns:{prefix}='{escape_attribute(namespace)}' {prefix}:{local}='{escape_attribute(value)}'")
