"""The way of a message over gateways, as ``Comity-History`` headers (GW-8). Pure.

Place on the path: inside steps 4 and 8, for ``mapping.py``.
"""

from __future__ import annotations

from datetime import UTC, datetime

from comity.bindings.sip.headers import clean_text, find, parse_params, quoted, unquoted
from comity.bindings.sip.message import SipRequest
from comity.cpim.history import MOST_HISTORY, HistoryEntry, read_entry, tls_word
from comity.errors import RemoteProtocolError

HISTORY = "Comity-History"
#: Entries are packed into few lines, since a SIP message has 64 headers.
HISTORY_LINES = 8


def parse_history(request: SipRequest) -> tuple[HistoryEntry, ...]:
    """Entries of ``Comity-History: node;in=P;out=P;time=RFC3339[;tls=both|in|out|none][;note="…"]``, several apart by commas.

    What cannot be read is left out: a hop may drop the header at any time, so may a broken one.
    """
    entries: list[HistoryEntry] = []
    if not request.values("comity-history"):
        return ()
    for text in request.listed("comity-history")[:MOST_HISTORY]:
        node, _, rest = text.partition(";")
        try:
            params = parse_params(f";{rest}", HISTORY)
            when = datetime.fromisoformat(find(params, "time") or "")
        except (RemoteProtocolError, ValueError):
            continue
        protocols = find(params, "in") or "", find(params, "out") or ""
        note = clean_text(unquoted(find(params, "note") or ""))
        entry = read_entry(clean_text(node), protocols, when, note, find(params, "tls") or "")
        if entry is not None:
            entries.append(entry)
    return tuple(entries)


def history_headers(history: tuple[HistoryEntry, ...]) -> list[tuple[str, str]]:
    """The entries as headers: one each, or several to a line where there are more than eight."""
    texts = []
    for entry in history[-MOST_HISTORY:]:
        time = entry.when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        text = f"{entry.node};in={entry.in_protocol};out={entry.out_protocol};time={time}"
        text += f";tls={word}" if (word := tls_word(entry)) else ""
        texts.append(text + (f";note={quoted(clean_text(entry.note))}" if entry.note else ""))
    step = -(-len(texts) // HISTORY_LINES) or 1
    return [(HISTORY, ", ".join(texts[start : start + step])) for start in range(0, len(texts), step)]
