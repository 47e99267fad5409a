"""One account of ours and one person of a SIP domain whom it watches there; what a NOTIFY about that person says. Pure.

Place on the path: steps 3 and 4 of a notify from a peer server, for ``abroad.py``. Each pair has a dialog of its own, so what is told to
one watcher reaches that one alone (T18, RFC 8048 section 8.2). A NOTIFY names its presentity twice, in From and in the document:
both have to be the one the dialog is about, else nothing of it is believed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from comity.bindings.base import Target
from comity.bindings.sip.mapping import Refusal, address_of
from comity.bindings.sip.message import SipRequest
from comity.bindings.sip.publishing import read_statement
from comity.bindings.sip.subscriber import Subscriber, Wish
from comity.cpim.address import Address, to_sip_uri
from comity.cpim.operations import Response
from comity.cpim.presence import PIDF_TYPE
from comity.errors import AddressError
from comity.service.interfaces import Contact, Timer
from comity.service.presence.interfaces import Statement

#: What is asked for beside ``application/pidf+xml``, which stands alone as RFC 8048 prints it: entities that a presentity secured.
ALSO = ("Accept", "multipart/signed, application/pkcs7-mime")


@dataclass(slots=True, eq=False)
class Pair:
    """A watcher of ours and a presentity there."""

    account: Address
    presentity: Address
    wire: Address
    """What the presentity is called at its server."""
    hop: Contact
    machine: Subscriber
    is_asked: bool = False
    """The account wants to know whether it may see the presentity."""
    is_watched: bool = False
    """Somebody of the account looks."""
    is_ending: bool = False
    """Nobody wants it any more; its last SUBSCRIBE may be on its way."""
    is_gone: bool = False
    """It is over, and nothing of it is to be done any more."""
    is_granted: bool = False
    """An active NOTIFY came in this dialog, and the account knows."""
    is_telling: bool = False
    """That is being made durable; what comes meanwhile waits in ``statement``."""
    is_due: bool = False
    """How things are is to be asked, also in a dialog that stands."""
    unattended: int = 0
    """SUBSCRIBE requests sent in a row while nobody looked."""
    told_at: float = float("-inf")
    """Monotonic, of the last active NOTIFY."""
    statement: Statement | None = None
    """What the last NOTIFY said."""
    dialog: tuple[str, str] = ("", "")
    """Call-ID and tag that its NOTIFY requests are found by."""
    targets: Sequence[Target] = ()
    """Where the last SUBSCRIBE could go."""
    waiting: list[asyncio.Future[Response]] = field(default_factory=list)
    """Errands that end with the next answer."""
    timer: Timer | None = None

    @property
    def is_wanted(self) -> bool:
        """True while somebody has use for it."""
        return (self.is_asked or self.is_watched) and not self.is_ending

    def settle(self, response: Response) -> None:
        """Say what became of the errands."""
        waiting, self.waiting = self.waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(response)


def wish_of(account: Address, presentity: Address, contact: str, *, scheme: str = "sip") -> Wish:
    """What is subscribed to: an hour of presence, asked for by ``sip:`` names (RFC 8048 section 5.2.1), or by ``pres:`` ones
    where the operator says that the server knows them (RFC 3856 section 5)."""
    if scheme == "pres":
        target, watcher = presentity.with_scheme("pres").uri, account.with_scheme("pres").uri
    else:
        target, watcher = to_sip_uri(presentity), to_sip_uri(account)
    return Wish(target, watcher, contact, accept=PIDF_TYPE, headers=(ALSO,))


def read_notify(
    request: SipRequest, presentity: Address, wire: Address, *, is_silent: bool = False
) -> Statement | Refusal | None:
    """What a NOTIFY says of the presentity: None if it has no body; the refusal of what cannot be believed or read.

    Args:
        request: of its dialog.
        presentity: whom that is about.
        wire: what the presentity is called there; its document may name it so, or as we do (GW-4).
        is_silent: it is looked at only whether it comes from there.

    Raises:
        RemoteProtocolError: headers cannot be read.
    """
    try:
        teller = address_of(str(request.from_.uri))[0]
    except AddressError:
        return Refusal(400, "Bad From")
    if teller.domain != wire.domain:
        return Refusal(403, "Not The Presentity")
    if is_silent:
        return None
    statement = read_statement(request)
    if isinstance(statement, Refusal) or statement is None:
        return statement
    document = statement.document
    if document is not None and not document.is_about(presentity):
        if not document.is_about(wire):
            return Refusal(403, "About Somebody Else")
        # The view says whom the link's name means; the octets stay as they are (GW-4).
        statement = replace(statement, document=replace(document, presentity=presentity.with_scheme("pres")))
    # One statement is all there is of a person: its tuples may be called as they call themselves (RFC 8048 section 6.3).
    return replace(statement, keeps_ids=True)
