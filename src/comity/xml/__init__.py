"""The one door to XML: octets to element trees and back, for every part of Comity.

Place on the path: under step 2 (XMPP's ``wire.py``) and under the readers of whole documents (PIDF, resource
lists). Octets from a peer come in; ``Element`` trees go out. Going out, ``serialize`` is the only writer. Nothing
outside this folder touches a parser.
"""

from comity.xml.document import parse_document
from comity.xml.element import XML_LANG, XML_NAMESPACE, CData, Element, RootClosed, RootOpened, Unit, XmlLimits
from comity.xml.located import LocatedAttribute, LocatedElement, locate
from comity.xml.reader import JOIN, NAMES_BEFORE_RENEWAL, SLICE, StreamReader
from comity.xml.writer import escape_attribute, is_xml_text, serialize, start_tag

__all__ = [
    "JOIN",
    "NAMES_BEFORE_RENEWAL",
    "SLICE",
    "XML_LANG",
    "XML_NAMESPACE",
    "CData",
    "Element",
    "LocatedAttribute",
    "LocatedElement",
    "RootClosed",
    "RootOpened",
    "StreamReader",
    "Unit",
    "XmlLimits",
    "escape_attribute",
    "is_xml_text",
    "locate",
    "parse_document",
    "serialize",
    "start_tag",
]
