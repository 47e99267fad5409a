"""Options (RFC 3340 section 5): which of them count here, which of them nobody here understands, and what the known ones ask for.

Place on the path: step 4, pure. Known are statusRequest (RFC 3340 section 5.1), the party pack (RFC 3342), and two of our own: the
transport history (GW-8) and the protection every hop must keep (T11). What is not known is passed on as it came, unless it is for
this relay and must be understood: that is an error in processing, 504.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from comity.bindings.apex.elements import DataHopping, DataTiming, Error, Option
from comity.bindings.apex.grammar import AGAINST_POLICY, NOT_VALID, WireError, document
from comity.bindings.apex.wire import read_option_content
from comity.cpim.history import MOST_HISTORY, HistoryEntry, read_entry, tls_word
from comity.cpim.operations import Requirement
from comity.cpim.protection import read_requirements
from comity.xml import escape_attribute, is_xml_text

STATUS_REQUEST: Final = "statusRequest"
ATTACH_OVERRIDE: Final = "attachOverride"
DATA_TIMING: Final = "dataTiming"
DATA_HOPPING: Final = "dataHopping"
HOLD: Final = "hold4Endpoint"
HISTORY: Final = "urn:comity:history:0"
PROTECTION: Final = "urn:comity:protection:0"
#: What only relays say, and each says anew.
RELAYS_OWN: Final = frozenset({HISTORY, PROTECTION})
#: Most history entries read or written (GW-8).
MAX_HOPS: Final = 255

Place = Literal["attach", "bind", "data", "originator", "recipient"]
"""The containing element."""

#: Where each known option may stand ("Present in" of its registration); elsewhere it is not known.
_KNOWN: Final[dict[str, frozenset[Place]]] = {
    STATUS_REQUEST: frozenset(("data", "recipient")),
    ATTACH_OVERRIDE: frozenset(("attach",)),
    DATA_TIMING: frozenset(("data",)),
    DATA_HOPPING: frozenset(("data",)),
    HOLD: frozenset(("data",)),
}
_KNOWN_EXTERNAL: Final[dict[str, frozenset[Place]]] = {
    HISTORY: frozenset(("data",)),
    PROTECTION: frozenset(("data",)),
}


def understands(option: Option, place: Place) -> bool:
    """Whether such an option is known here."""
    if option.internal:
        return place in _KNOWN.get(option.internal, ())
    return place in _KNOWN_EXTERNAL.get(option.external, ())


def not_understood(options: Iterable[Option], place: Place, *, is_final: bool = True) -> Error | None:
    """The error in processing (RFC 3340 section 5) for the first option that is for this relay, must be understood and is not.

    ``is_final``: this relay hands the element to the recipient itself; an attach or bind goes no further.
    """
    for option in options:
        is_for_us = is_final or option.target_hop != "final"
        if is_for_us and option.must_understand and not understands(option, place):
            return Error(504, f"the option {option.name[:128]} is not understood here")
    return None


_NO_TIMING: Final = DataTiming()
_NO_HOPPING: Final = DataHopping()


@dataclass(frozen=True, slots=True)
class Asked:
    """What the per-data options ask for."""

    status: int = 0
    """The transID of a statusRequest; 0: there is none."""
    timing: DataTiming = _NO_TIMING
    timing_id: int = 0
    hopping: DataHopping = _NO_HOPPING
    hopping_id: int = 0
    requirements: frozenset[Requirement] = frozenset()
    history: tuple[HistoryEntry, ...] = ()


_NOTHING = Asked()


def read_options(options: Sequence[Option]) -> Asked | Error:
    """Read the per-data options that are known here; the first of a name counts."""
    if not options:
        return _NOTHING
    first: dict[str, Option] = {}
    for option in options:
        if understands(option, "data"):
            first.setdefault(option.name, option)
    try:
        timing, hopping = first.get(DATA_TIMING), first.get(DATA_HOPPING)
        protection, history = first.get(PROTECTION), first.get(HISTORY)
        asked = Asked(
            status_of(options),
            _NO_TIMING if timing is None else read_option_content(timing, DATA_TIMING),
            0 if timing is None else timing.trans_id,
            _NO_HOPPING if hopping is None else read_option_content(hopping, DATA_HOPPING),
            0 if hopping is None else hopping.trans_id,
            frozenset() if protection is None else _read_protection(protection),
            () if history is None else read_history(history),
        )
    except WireError as error:
        # The data around it could be read: what stands in an option is a parameter, whatever is wrong with it.
        return Error(error.code if error.code == AGAINST_POLICY else NOT_VALID, error.reason)
    wants_timing = asked.timing.return_trip or asked.timing.report_after or asked.timing.report_errors
    if (wants_timing and not asked.timing_id) or (asked.hopping.report_errors and not asked.hopping_id):
        return Error(501, "an option that asks for a report needs a transID")
    return asked


def status_of(options: Iterable[Option]) -> int:
    """The transID of the first statusRequest, 0 if there is none. Raises WireError if it has none to answer by."""
    for option in options:
        if option.internal == STATUS_REQUEST:
            if not option.trans_id:
                raise WireError("a statusRequest needs a transID")
            return option.trans_id
    return 0


# --- ours: history and protection, in the words of the XMPP children ------------------------------------------------


def read_history(option: Option) -> tuple[HistoryEntry, ...]:
    """The transport history a relay put in; what cannot be read is left out, as any hop may drop it."""
    try:
        root = document(option.content.strip())
    except WireError:
        return ()
    entries: list[HistoryEntry] = []
    for hop in root.elements():
        try:
            when = datetime.fromisoformat(hop.get("time"))
        except ValueError:
            continue
        protocols = hop.get("in"), hop.get("out")
        entry = read_entry(hop.get("node"), protocols, when, hop.get("note"), hop.get("tls"))
        if entry is not None:
            entries.append(entry)
    return tuple(entries[:MOST_HISTORY])


def history_option(history: Sequence[HistoryEntry], trans_id: int) -> Option:
    """The transport history: for every relay, and nobody needs to understand it (GW-8)."""
    hops = "".join(map(_hop, history[-MOST_HISTORY:]))
    content = f"<history xmlns='{HISTORY}'>{hops}</history>".encode()
    return Option(external=HISTORY, target_hop="all", trans_id=trans_id, content=content)


def _hop(entry: HistoryEntry) -> str:
    stamp = entry.when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    said = [("node", entry.node), ("in", entry.in_protocol), ("out", entry.out_protocol), ("time", stamp)]
    if word := tls_word(entry):
        said.append(("tls", word))
    if entry.note and is_xml_text(entry.note):
        said.append(("note", entry.note))
    return "<hop " + " ".join(f'{name}="{escape_attribute(value)}"' for name, value in said) + "/>"


def protection_option(requirements: Iterable[Requirement], trans_id: int) -> Option:
    """What every hop must keep: a relay that does not know the option has to refuse the data (T11, SEC-30)."""
    names = "".join(f"<{requirement.value}/>" for requirement in sorted(requirements, key=lambda each: each.value))
    content = f"<protection xmlns='{PROTECTION}'>{names}</protection>".encode()
    return Option(external=PROTECTION, target_hop="all", must_understand=True, trans_id=trans_id, content=content)


def _read_protection(option: Option) -> frozenset[Requirement]:
    root = document(option.content.strip())
    wanted = [each.local for each in root.elements()]
    try:
        if root.name != f"{{{PROTECTION}}}protection" or not wanted:
            raise ValueError
        if any(each.namespace != PROTECTION for each in root.elements()):
            raise ValueError
        return read_requirements(wanted)
    except ValueError:
        text = "this data requires a protection that is not known here"
        raise WireError(text, AGAINST_POLICY) from None
