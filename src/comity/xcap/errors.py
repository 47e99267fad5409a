"""What XCAP answers when it does not do what it was asked to (RFC 4825 sections 8 and 11).

Place on the path: beside it, for all of ``xcap``. Whatever is wrong with a request is raised as ``Refused`` and turned into a
response at one place, ``resources.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from comity.errors import ComityError
from comity.xml import Element, is_xml_text, serialize

ERROR_TYPE: Final = "application/xcap-error+xml"
XCAP_ERROR: Final = "urn:ietf:params:xml:ns:xcap-error"

Condition = Literal[
    "not-well-formed",
    "not-xml-frag",
    "no-parent",
    "schema-validation-error",
    "not-xml-att-value",
    "cannot-insert",
    "cannot-delete",
    "uniqueness-failure",
    "constraint-failure",
    "not-utf-8",
]


class Refused(ComityError):
    """A request that is not carried out.

    Args:
        status: of HTTP.
        phrase: why, for people; without the request's own octets.
        allow: methods, for 405.
    """

    def __init__(self, status: int, phrase: str, *, allow: str = "") -> None:
        self.status = status
        self.phrase = phrase
        self.allow = allow
        super().__init__(f"{status}: {phrase}")

    @property
    def document(self) -> bytes:
        """What stands in the body of the answer; empty if there is nothing more to say."""
        return b""


class Conflict(Refused):
    """A 409 with its detailed conflict report (RFC 4825 section 11).

    Args:
        condition: the error element.
        phrase: why, for people.
        ancestor: for no-parent: the closest resource there is, as a percent-encoded URI.
        fields: for uniqueness-failure: what has to be unique and was not, as percent-encoded URIs relative to the document.
    """

    def __init__(self, condition: Condition, phrase: str, *, ancestor: str = "", fields: Sequence[str] = ()) -> None:
        super().__init__(409, phrase)
        self.condition = condition
        self.ancestor = ancestor
        self.fields = tuple(fields)

    @property
    def document(self) -> bytes:
        """The conflict report."""
        error = Element(_name(self.condition))
        if is_xml_text(self.phrase):
            error.attributes["phrase"] = self.phrase
        if self.ancestor:
            error.append(Element(_name("ancestor"), children=[self.ancestor]))
        for text in self.fields:
            error.append(Element(_name("exists"), {"field": text}))
        report = serialize(Element(_name("xcap-error"), children=[error]))
        return b'<?xml version="1.0" encoding="UTF-8"?>\n' + report


def _name(local: str) -> str:
    return f"{{{XCAP_ERROR}}}{local}"
