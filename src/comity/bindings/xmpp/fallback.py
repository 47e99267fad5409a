"""What an XMPP program says without words, in words for everybody else: corrections, deletions, reactions, links (T5).

Place on the path: inside step 4. The object's text is what programs of other protocols show; XMPP programs get the sender's own
elements back (``Context.native``). Nothing named here is ever fetched (T26).
"""

from __future__ import annotations

from typing import Final

from comity.xml import Element

REPLACE: Final = "{urn:xmpp:message-correct:0}replace"
RETRACT: Final = frozenset(f"{{urn:xmpp:message-retract:{version}}}retract" for version in (0, 1))
APPLY: Final = "{urn:xmpp:fasten:0}apply-to"
"""Around the retraction of version 0."""
REACTIONS: Final = "{urn:xmpp:reactions:0}reactions"
ATTENTION: Final = "{urn:xmpp:attention:0}attention"
OOB: Final = "jabber:x:oob"
FALLBACK: Final = "{urn:xmpp:fallback:0}fallback"
MOST_REACTIONS: Final = 16

CORRECTION: Final = "[Correction of an earlier message] "
RETRACTION: Final = "[The sender asks you to disregard an earlier message.]"
CALL: Final = "[The sender asks for your attention.]"
NO_REACTION: Final = "[Reaction to a message withdrawn]"


def words_for(extensions: list[Element], text: str) -> str | None:
    """What others are shown in place of the body; None: the body says it all.

    Args:
        extensions: children of the stanza.
        text: of its body, "" if it has none.
    """
    said = _said(extensions, text)
    link = _link(extensions, text if said is None else said)
    if link:
        return "\n".join(part for part in (text if said is None else said, link) if part)
    return said


def _said(extensions: list[Element], text: str) -> str | None:
    names = {child.name: child for child in extensions}
    if text:
        return f"{CORRECTION}{text}" if REPLACE in names else None
    if not RETRACT.isdisjoint(names) or (APPLY in names and any(c.name in RETRACT for c in names[APPLY].elements())):
        return RETRACTION
    if REACTIONS in names:
        found = [child.text.strip() for child in names[REACTIONS].elements() if child.local == "reaction"]
        shown = " ".join(" ".join(one.split()) for one in found[:MOST_REACTIONS] if one)
        return f"[Reaction to a message: {shown}]" if shown else NO_REACTION
    return CALL if ATTENTION in names else None


def _link(extensions: list[Element], text: str) -> str:
    """Links sent beside the text (XEP-0066) that do not stand in it: as they are, each with its description."""
    lines = []
    for child in extensions:
        if child.name != f"{{{OOB}}}x":
            continue
        url, about = (child.find(f"{{{OOB}}}{name}") for name in ("url", "desc"))
        address = "" if url is None else "".join(url.text.split())
        if address and address not in text:
            said = "" if about is None else " ".join(about.text.split())
            lines.append(f"{said}: {address}" if said else address)
    return "\n".join(lines)
