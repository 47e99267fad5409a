"""Options (RFC 3340 section 5): which of them count here, which of them nobody here understands, and what the known ones ask for.

Place on the path: step 4, pure. Known are statusRequest (RFC 3340 section 5.1), the party pack (RFC 3342), and two of our own: the
transport history (GW-8) and the protection every hop must keep (T11). What is not known is passed on as it came, unless it is for
this relay and must be understood: that is an error in processing, 504.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from comity.bindings.apex.elements import DataHopping, DataTiming, Error, Option
from comity.cpim.operations import HistoryEntry, Requirement
from comity.cpim.protection import read_requirements
from comity.errors import RemoteProtocolError
from comity.xml import Element, escape_attribute, is_xml_text, parse_document

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
MAX_HISTORY: Final = 64
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

_NUMBER = re.compile(r"[0-9]{1,10}")
_MOST: Final = 2**31 - 1


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


@dataclass(frozen=True, slots=True)
class Asked:
    """What the per-data options ask for."""

    status: int = 0
    """The transID of a statusRequest; 0: there is none."""
    timing: DataTiming = DataTiming()
    timing_id: int = 0
    hopping: DataHopping = DataHopping()
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
            DataTiming() if timing is None else read_timing(timing),
            0 if timing is None else timing.trans_id,
            DataHopping() if hopping is None else read_hopping(hopping),
            0 if hopping is None else hopping.trans_id,
            frozenset() if protection is None else _read_protection(protection),
            () if history is None else read_history(history),
        )
    except RemoteProtocolError as error:
        return Error(int(error.hint or 501), error.reason)
    wants_timing = asked.timing.return_trip or asked.timing.report_after or asked.timing.report_errors
    if (wants_timing and not asked.timing_id) or (asked.hopping.report_errors and not asked.hopping_id):
        return Error(501, "an option that asks for a report needs a transID")
    return asked


def status_of(options: Iterable[Option]) -> int:
    """The transID of the first statusRequest, 0 if there is none. Raises RemoteProtocolError if it has none to answer by."""
    for option in options:
        if option.internal == STATUS_REQUEST:
            if not option.trans_id:
                raise RemoteProtocolError("a statusRequest needs a transID", hint="501")
            return option.trans_id
    return 0


def read_timing(option: Option) -> DataTiming:
    """The content of a dataTiming (RFC 3342 section 2). Raises RemoteProtocolError."""
    element = _only(option, DATA_TIMING, ("noLaterThan", "returnTrip", "reportAfter", "reportErrors"))
    return DataTiming(
        _number(element, "noLaterThan", _MOST),
        _number(element, "returnTrip", _MOST),
        _number(element, "reportAfter", _MOST),
        _is_true(element),
    )


def read_hopping(option: Option) -> DataHopping:
    """The content of a dataHopping (RFC 3342 section 4). Raises RemoteProtocolError."""
    element = _only(option, DATA_HOPPING, ("noMoreThan", "reportErrors"))
    return DataHopping(_number(element, "noMoreThan", MAX_HOPS), _is_true(element))


def timing_content(timing: DataTiming) -> bytes:
    """A dataTiming element."""
    said = (
        ("noLaterThan", timing.no_later_than),
        ("returnTrip", timing.return_trip),
        ("reportAfter", timing.report_after),
    )
    attributes = "".join(f" {name}='{value}'" for name, value in said if value)
    return f"<dataTiming{attributes}{_errors(timing.report_errors)} />".encode()


def hopping_content(hopping: DataHopping) -> bytes:
    """A dataHopping element."""
    return f"<dataHopping noMoreThan='{hopping.no_more_than}'{_errors(hopping.report_errors)} />".encode()


def _errors(report_errors: bool) -> str:
    return " reportErrors='true'" if report_errors else ""


def _only(option: Option, name: str, attributes: Sequence[str]) -> Element:
    """The one element an option holds."""
    element = _parsed(option)
    if element.name != name or element.children and (element.text.strip() or any(True for _ in element.elements())):
        raise RemoteProtocolError(f"a {name} option holds one empty {name} element", hint="501")
    if any(key not in attributes for key in element.attributes):
        raise RemoteProtocolError(f"{name} has an attribute that RFC 3342 does not know", hint="501")
    return element


def _parsed(option: Option) -> Element:
    try:
        root = parse_document(b"<option>" + option.content + b"</option>")
    except RemoteProtocolError as error:
        raise RemoteProtocolError(f"the content of {option.name[:64]} cannot be read", hint="501") from error
    children = list(root.elements())
    if len(children) != 1 or root.text.strip():
        raise RemoteProtocolError(f"the option {option.name[:64]} holds one element", hint="501")
    return children[0]


def _number(element: Element, name: str, most: int) -> int:
    text = element.get(name) or "0"
    if not _NUMBER.fullmatch(text) or int(text) > most:
        raise RemoteProtocolError(f"{name} is no number from 0 to {most}", hint="501")
    return int(text)


def _is_true(element: Element) -> bool:
    text = element.get("reportErrors") or "false"
    if text not in ("true", "false"):
        raise RemoteProtocolError("reportErrors is true or false", hint="501")
    return text == "true"


# --- ours: history and protection, in the words of the XMPP children ------------------------------------------------


def read_history(option: Option) -> tuple[HistoryEntry, ...]:
    """The transport history a relay put in; what cannot be read is left out, as any hop may drop it."""
    try:
        root = _parsed(option)
    except RemoteProtocolError:
        return ()
    entries: list[HistoryEntry] = []
    for hop in root.elements():
        try:
            when = datetime.fromisoformat(hop.get("time"))
        except ValueError:
            continue
        said = hop.get("node"), hop.get("in"), hop.get("out"), hop.get("note")
        if when.tzinfo is None or len(said[0]) > 255 or len(said[1]) > 16 or len(said[2]) > 16:
            continue
        entries.append(HistoryEntry(*said[:3], when.astimezone(UTC), said[3][:128]))
    return tuple(entries[:MAX_HISTORY])


def history_option(history: Sequence[HistoryEntry], trans_id: int) -> Option:
    """The transport history: for every relay, and nobody needs to understand it (GW-8)."""
    hops = "".join(map(_hop, history[-MAX_HISTORY:]))
    content = f"<history xmlns='{HISTORY}'>{hops}</history>".encode()
    return Option(external=HISTORY, target_hop="all", trans_id=trans_id, content=content)


def _hop(entry: HistoryEntry) -> str:
    stamp = entry.when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    said = [("node", entry.node), ("in", entry.in_protocol), ("out", entry.out_protocol), ("time", stamp)]
    if entry.note and is_xml_text(entry.note):
        said.append(("note", entry.note))
    return "<hop " + " ".join(f'{name}="{escape_attribute(value)}"' for name, value in said) + "/>"


def protection_option(requirements: Iterable[Requirement], trans_id: int) -> Option:
    """What every hop must keep: a relay that does not know the option has to refuse the data (T11, SEC-30)."""
    names = "".join(f"<{requirement.value}/>" for requirement in sorted(requirements, key=lambda each: each.value))
    content = f"<protection xmlns='{PROTECTION}'>{names}</protection>".encode()
    return Option(external=PROTECTION, target_hop="all", must_understand=True, trans_id=trans_id, content=content)


def _read_protection(option: Option) -> frozenset[Requirement]:
    root = _parsed(option)
    wanted = [each.local for each in root.elements()]
    try:
        if root.name != f"{{{PROTECTION}}}protection" or not wanted:
            raise ValueError
        if any(each.namespace != PROTECTION for each in root.elements()):
            raise ValueError
        return read_requirements(wanted)
    except ValueError:
        text = "this data requires a protection that is not known here"
        raise RemoteProtocolError(text, hint="554") from None
