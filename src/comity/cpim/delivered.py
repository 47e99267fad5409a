"""In which form a message was delivered, in the words its sender is told (SEC-29, T11). Pure.

Place on the path: on the way back. A binding says the form (``Response.form``), the service adds where the object ended, and each
protocol carries both to the sender: a SIP header, the text of an APEX statusResponse, an element in XMPP.
"""

from __future__ import annotations

import re
from typing import Final

OBJECT: Final = "object"
TEXT: Final = "text"
READABLE: Final = "text-of-signed"
PASSED_ON: Final = "passed-on"
"""``Response.form`` of what a next hop took over together with the duty to report."""

TEXT_FORMS: Final = frozenset({TEXT, READABLE})
"""What is no longer the object."""
_WORDS: Final = {
    OBJECT: "object whole",
    TEXT: "text only: the object ends at ",
    READABLE: "text only: protection ends at ",
    PASSED_ON: "passed on: its end is not known yet",
}
_NODE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f.:]{2,45}\]")


def in_words(form: str, at: str) -> str:
    """What to tell a sender; "" where nothing is known."""
    words = _WORDS.get(form, "")
    return words + (at or "the next server") if form in TEXT_FORMS else words


def read_words(text: str) -> tuple[str, str]:
    """(form, node) of what ``in_words`` wrote; ("", "") for any other text."""
    for form, words in _WORDS.items():
        if form in TEXT_FORMS and text.startswith(words):
            return checked(form, text.removeprefix(words))
        if text == words:
            return form, ""
    return "", ""


def checked(form: str, at: str) -> tuple[str, str]:
    """A form and a node as another server said them: ("", "") for no form known here, no node that is none."""
    if form not in _WORDS:
        return "", ""
    return form, at if form in TEXT_FORMS and _NODE.fullmatch(at) else ""


def sealed_words(scheme: str) -> str:
    """Why a message is refused that only its own protocol's programs can decrypt; its text would be a notice in its place."""
    return f"The message is encrypted with {scheme}, which the recipient's program cannot read."
