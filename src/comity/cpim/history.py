"""The transport-history layer: by which nodes a message came, outside the octets (GW-8, SEED-54).

Place on the path: each node appends one entry when it hands a message on; each binding carries the entries in its own spelling.
For each node it says whether the link in and the link out were under TLS, as far as that node says so. None of it is proved:
every node can write what it likes about those before it. It finds loops and shows a person the way; it decides nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One "received line" (GW-8, SEED-54)."""

    node: str
    """Domain name of the node that handled the message."""
    in_protocol: str
    out_protocol: str
    when: datetime
    """Aware, UTC."""
    note: str = ""
    in_tls: bool | None = None
    """Whether the link it came by was under TLS; None if the node does not say."""
    out_tls: bool | None = None


MOST_HISTORY = 64
"""History entries carried; above it the oldest middle ones become one (GW-8)."""
MOST_NODE, MOST_PROTOCOL, MOST_NOTE = 255, 16, 128
"""Characters of a name, of a protocol and of a note that are read."""
_MERGED = " nodes in one"
_WORDS: Final = {(True, True): "both", (True, False): "in", (False, True): "out", (False, False): "none"}
_LINKS: Final = {word: links for links, word in _WORDS.items()}


def tls_word(entry: HistoryEntry) -> str:
    """What every protocol writes of an entry's links: both, in, out, none; "" where one of them is not known."""
    if entry.in_tls is None or entry.out_tls is None:
        return ""
    return _WORDS[entry.in_tls, entry.out_tls]


def read_entry(node: str, protocols: tuple[str, str], when: datetime, note: str, tls: str) -> HistoryEntry | None:
    """An entry as another node wrote it; None for one that nobody wrote in good faith: any hop may drop it."""
    if when.tzinfo is None or not node or len(node) > MOST_NODE or max(map(len, protocols)) > MOST_PROTOCOL:
        return None
    in_tls, out_tls = _LINKS.get(tls, (None, None))
    return HistoryEntry(node, *protocols, when, note[:MOST_NOTE], in_tls, out_tls)


def left_by(history: tuple[HistoryEntry, ...], *, is_protected: bool) -> tuple[HistoryEntry, ...]:
    """The history as it leaves by a link that is only known now: our own entry, the last, says what that is."""
    if not history or history[-1].out_tls is is_protected:
        return history
    return (*history[:-1], replace(history[-1], out_tls=is_protected))


def extended(history: tuple[HistoryEntry, ...], entry: HistoryEntry) -> tuple[HistoryEntry, ...]:
    """The history with one entry more: the first always stays, and the last ones."""
    if len(history) < MOST_HISTORY:
        return (*history, entry)
    oldest, last = history[1], history[-MOST_HISTORY + 2]
    before = len(history) - MOST_HISTORY + 2
    if oldest.note.endswith(_MERGED) and (count := oldest.note.removesuffix(_MERGED)).isdecimal():
        before += int(count) - 1
    links = oldest.in_tls, oldest.out_tls, last.in_tls, last.out_tls
    worst = False if False in links else None if None in links else True
    note = f"{before}{_MERGED}"
    merged = replace(oldest, out_protocol=last.out_protocol, note=note, in_tls=worst, out_tls=worst)
    return (history[0], merged, *history[-MOST_HISTORY + 3 :], entry)


def in_words(history: tuple[HistoryEntry, ...]) -> str:
    """The way for a person, node by node, with what is known not to have been under TLS."""
    return ", ".join(_in_words(entry) for entry in history)


def _in_words(entry: HistoryEntry) -> str:
    clear = [name for name, tls in (("in", entry.in_tls), ("out", entry.out_tls)) if tls is False]
    said = f"{entry.node} ({entry.in_protocol} to {entry.out_protocol}"
    return said + (f", {' and '.join(clear)} without TLS" if clear else "") + ")"
