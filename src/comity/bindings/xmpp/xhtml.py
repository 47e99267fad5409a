"""A page of HTML as a text and as XHTML-IM (RFC 7572 section 7, XEP-0071).

Place on the path: inside step 8, for a content of text/html from another protocol. Only what XEP-0071 recommends comes through,
without styles, scripts, images and anything that would be fetched (T26); the object itself stays as it is.
"""

from __future__ import annotations

import re
from html import unescape
from typing import Final

from comity.cpim.entity import CPIM_TYPE, content_object, content_type_params, decode_transfer
from comity.cpim.message import CpimMessage
from comity.cpim.operations import MimeObject
from comity.errors import MalformedMessage
from comity.xml import Element, is_xml_text

XHTML: Final = "http://www.w3.org/1999/xhtml"
XHTML_IM: Final = "http://jabber.org/protocol/xhtml-im"
MOST_OCTETS: Final = 32 * 1024
"""Of a page that is looked into; a larger one goes whole or not at all."""
MOST_ELEMENTS: Final = 1000
MOST_DEPTH: Final = 24

_INLINE = frozenset({"a", "em", "strong", "span", "cite", "code", "br"})
_BLOCKS = frozenset({"p", "blockquote", "pre", "ul", "ol", "li", "h1", "h2", "h3", "h4", "h5", "h6"})
_AS = {"b": "strong", "i": "em", "div": "p", "tr": "p", "tt": "code"}
"""Written otherwise, or not at all in XHTML-IM."""
_UNSEEN = frozenset({"script", "style", "head", "title", "template", "object", "iframe", "svg", "math"})
_LINK = re.compile(r"(?:https?|mailto|xmpp|sips?|im|tel):[^\s\x00-\x1f]{1,2000}", re.IGNORECASE)
#: A comment, a declaration, a tag, a text, a lone "<". In tags "<" stands for the next one: each octet is looked at once or twice,
#: which html.parser of Python 3.11 does not promise (ten seconds for 32 KiB).
_TOKEN = re.compile(
    r"""<!--.*?(?:-->|\Z)|<[!?][^>]*+>?|<(/?)([A-Za-z][A-Za-z0-9]*+)((?:[^<>"']|"[^"<]*+"|'[^'<]*+')*+)>|([^<]++|<)""",
    re.DOTALL,
)
_HREF = re.compile(r"""[\s"']href\s*+=\s*+(?:"([^"]*+)"|'([^']*+)'|([^\s"'>]++))""", re.IGNORECASE)
_SPACE = re.compile(r"[ \t\r\n\f]+")


def page_of(obj: MimeObject) -> tuple[str, Element] | None:
    """The text of an object that is a page, and its ``html`` element of XHTML-IM; None if it is none, or too much."""
    try:
        if obj.media_type == CPIM_TYPE:
            obj = content_object(CpimMessage.parse(decode_transfer(obj)))
        if obj.media_type != "text/html":
            return None
        charset = content_type_params(obj.content_type)[1].get("charset", "utf-8").lower()
        octets = decode_transfer(obj)
    except MalformedMessage:
        return None
    if charset not in ("utf-8", "us-ascii") or len(octets) > MOST_OCTETS:
        return None
    try:
        page = octets.decode("ascii" if charset == "us-ascii" else "utf-8")
    except UnicodeDecodeError:
        return None
    if not is_xml_text(page):
        return None
    reader = _Reader()
    for token in _TOKEN.finditer(page):
        closing, tag, attributes, text = token.groups()
        if text:
            reader.text(unescape(text))
        elif tag:
            reader.end(tag.lower()) if closing else reader.start(tag.lower(), attributes)
    if reader.is_too_much or not reader.words():
        return None
    return reader.words(), Element(f"{{{XHTML_IM}}}html", {}, [reader.body])


class _Reader:
    """Builds both as the page goes by; end tags without a beginning say nothing, missing ones come with their parent's."""

    def __init__(self) -> None:
        self.body = Element(f"{{{XHTML}}}body")
        self.is_too_much = False
        self._open: list[tuple[str, Element]] = [("body", self.body)]
        self._unseen = 0
        self._elements = 0
        self._said: list[str] = []

    def words(self) -> str:
        """The text of the page, a line for each block."""
        lines = [" ".join(line.split(" ")).strip() for line in "".join(self._said).split("\n")]
        return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()

    def start(self, tag: str, attributes: str) -> None:
        """Open an element that XHTML-IM has; what stands in others is read as if they were not there."""
        if tag in _UNSEEN:
            self._unseen += 1
        name = _AS.get(tag, tag)
        if self._unseen or name not in _INLINE | _BLOCKS:
            return
        self._elements += 1
        if self._elements > MOST_ELEMENTS or len(self._open) > MOST_DEPTH:
            self.is_too_much = True
            return
        kept = {}
        found = _HREF.search(attributes) if name == "a" else None
        link = "" if found is None else unescape(found[1] or found[2] or found[3] or "").strip()
        if _LINK.fullmatch(link) and is_xml_text(link):
            kept["href"] = link
        element = Element(f"{{{XHTML}}}{name}", kept)
        self._open[-1][1].append(element)
        if name == "br" or name in _BLOCKS:
            self._said.append("\n")
        if name == "li":
            self._said.append("- ")
        if name != "br":
            self._open.append((name, element))

    def end(self, tag: str) -> None:
        """Close the nearest element of that name and what is open inside it."""
        if tag in _UNSEEN:
            self._unseen = max(0, self._unseen - 1)
        name = _AS.get(tag, tag)
        opened = [index for index, (other, _) in enumerate(self._open) if other == name and index]
        if self._unseen or not opened:
            return
        link = self._open[opened[-1]][1].get("href") if name == "a" else ""
        if link and link not in self._open[opened[-1]][1].text:
            self._said.append(f" <{link}>")
        if name in _BLOCKS:
            self._said.append("\n")
        del self._open[opened[-1] :]

    def text(self, data: str) -> None:
        """Text, its white space as HTML has it."""
        if self._unseen or not is_xml_text(data):  # a character reference may name what XML cannot hold
            return
        shown = _SPACE.sub(" ", data)
        self._open[-1][1].append(shown)
        self._said.append(shown)
