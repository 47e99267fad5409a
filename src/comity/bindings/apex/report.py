"""The report service, ``apex=report`` (RFC 3340 section 6.2): what a sender wants to be told, and how it is told.

Place on the path: steps 4 and 8, pure but for ``ReportService``. A sender asks by options: statusRequest (RFC 3340 section 5.1),
dataTiming and dataHopping (RFC 3342). What it asked travels with the message in ``Context.native_id``, and comes back in the
report operation of the service. Nothing is ever reported about a report: the service makes none, and what is said here bears
no statusRequest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from comity.bindings.apex.elements import (
    DataTiming,
    Destination,
    Option,
    Part,
    Reply,
    ServiceElement,
    StatusResponse,
)
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.interfaces import Relay
from comity.bindings.apex.options import DATA_TIMING, Asked
from comity.bindings.apex.reasons import CODES
from comity.bindings.apex.wire import write_option_content
from comity.cpim.delivered import in_words
from comity.cpim.operations import Fate, Reason, Report
from comity.errors import AddressError
from comity.service.interfaces import Origin

NAME: Final = "report"
_MOST_TEXT: Final = 500


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the sender of one data to one recipient wants to be told; a number is a transID, 0: not asked for."""

    recipient: Endpoint
    """As the sender wrote it."""
    status: int = 0
    """Of a statusRequest: every end."""
    timing: int = 0
    """Of a dataTiming."""
    return_trip: int = 0
    """Milliseconds: delivery is to be told, within this time."""
    reports_lateness: bool = False
    reports_delay: bool = False
    hopping: int = 0
    """Of a dataHopping with reportErrors."""

    @classmethod
    def of(cls, recipient: Endpoint, asked: Asked, status: int) -> Wanted:
        """What options ask for; ``status`` is the statusRequest that counts for this recipient."""
        timing = asked.timing
        return cls(
            recipient,
            status,
            asked.timing_id,
            timing.return_trip,
            timing.report_errors,
            timing.report_after > 0,
            asked.hopping_id if asked.hopping.report_errors else 0,
        )

    @property
    def wants_receipt(self) -> bool:
        """True if delivery, or that it takes long, is to be told."""
        return bool(self.status or self.return_trip or self.reports_delay)

    def write(self) -> str:
        """As it stands in ``Context.native_id``."""
        numbers = self.status, self.timing, self.return_trip, int(self.reports_lateness), int(self.reports_delay)
        return f"{'.'.join(map(str, (*numbers, self.hopping)))} {self.recipient}"

    @classmethod
    def read(cls, native_id: str) -> Wanted | None:
        """The inverse; None for what another binding wrote."""
        numbers, _, identity = native_id.partition(" ")
        try:
            status, timing, return_trip, lateness, delay, hopping = map(int, numbers.split("."))
            recipient = Endpoint.parse(identity)
        except (ValueError, AddressError):
            return None
        return cls(recipient, status, timing, return_trip, bool(lateness), bool(delay), hopping)

    def answers(self, report: Report) -> dict[int, int]:
        """The replies to give, transID to code; empty if nothing of the kind was asked for."""
        found: dict[int, int] = {}
        if report.fate is Fate.DELIVERED:
            if self.return_trip:
                found[self.timing] = 250  # final hop report (RFC 3342 section 2.1.1)
            if self.status:
                found[self.status] = 250
        elif report.fate is Fate.DELAYED:
            if self.reports_delay:
                found[self.timing] = 350  # transient timing report (section 2.2.1)
        elif report.fate is Fate.FAILED:
            found = self.refusals(CODES[report.reason], report.reason)
        return found

    def refusals(self, code: int, reason: Reason | None) -> dict[int, int]:
        """The replies to give about a recipient that will never get it, transID to code.

        Args:
            code: of the refusal.
            reason: of the service; None if no operation was made of it.
        """
        found: dict[int, int] = {}
        if self.hopping and reason in (Reason.HOPS, Reason.LOOP):
            found[self.hopping] = 550  # RFC 3342 section 4
        if self.reports_lateness and reason is Reason.EXPIRED:
            found[self.timing] = 550  # timing error report (section 2.1.2)
        if self.status:
            found[self.status] = code
        return found


@dataclass(frozen=True, slots=True)
class Said:
    """One statusResponse with the options its data has to carry."""

    element: StatusResponse
    options: tuple[Option, ...] = ()


def responses(report: Report, new_trans_id: Callable[[], int]) -> list[Said]:
    """What to send to the endpoint that a report is for; empty if it asked for nothing of the kind."""
    wanted = Wanted.read(report.native_id)
    if wanted is None:
        return []
    text = report.text[:_MOST_TEXT] if report.fate is Fate.FAILED else in_words(report.form, report.at)
    said: list[Said] = []
    for trans_id, code in wanted.answers(report).items():
        options: tuple[Option, ...] = ()
        if code == 250 and trans_id == wanted.timing and wanted.return_trip:
            content = write_option_content(DataTiming(no_later_than=wanted.return_trip))
            options = (Option(DATA_TIMING, "", "all", must_understand=True, trans_id=new_trans_id(), content=content),)
        destination = Destination(wanted.recipient, Reply(code, text=text))
        said.append(Said(StatusResponse(trans_id, (destination,)), options))
    return said


class ReportService:
    """The well-known endpoint itself: "a consumer of the service does not initiate communications with the service"."""

    name = NAME

    def start(self, relay: Relay) -> None:
        """Nothing to do: ``delivery.py`` speaks in its name."""

    def knows(self, element: ServiceElement | Part) -> bool:
        """Nothing is ever asked of it."""
        return False

    def understands(self, option: Option) -> bool:
        """None."""
        return False

    async def handle(
        self,
        originator: Endpoint,
        domain: str,
        element: ServiceElement | Part,
        origin: Origin,
        options: Sequence[Option] = (),
    ) -> None:
        """Not called: see ``knows``."""
