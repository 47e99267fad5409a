"""Signing in at next hops that ask for it: which password may be shown to whom (S-24, S-25, T14).

Place on the path: beside step 9, for ``exchange.py``. An operator gives a next hop a user, a password and a realm (``[[route]]``). A
challenge counts only as the answer to a request of ours by the link on which that was sent: a datagram from the target's address, or
its connection, under TLS with the certificate that names it. Nothing that comes in is ever answered with credentials.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from comity.bindings.base import Target
from comity.bindings.sip.config import TrunkConfig
from comity.bindings.sip.digest import DigestClient
from comity.bindings.sip.message import SipRequest, SipResponse
from comity.errors import RemoteProtocolError

log = logging.getLogger(__name__)

MOST_CHALLENGES = 3
"""Answered for one request at one target: the first, one gone stale, one that another request overtook."""


class Signing:
    """Our accounts at next hops."""

    def __init__(self, trunks: Sequence[TrunkConfig], random: Callable[[int], bytes]) -> None:
        self._trunks = {trunk.domain: trunk for trunk in trunks if trunk.user}
        self._random = random
        self._clients: dict[tuple[str, Target], DigestClient] = {}
        """One for each target: its nonces are its own."""

    def can_answer(self, domain: str, target: Target, response: SipResponse, nonce: str, challenges: int) -> bool:
        """Take the challenge of a 401 or 407; False if it is not to be answered: nobody gave us a password for it, or it is
        the answer to that password.

        Args:
            nonce: of the credentials that this request bore, "" for none.
            challenges: how often this request was challenged before.
        """
        trunk = self._trunks.get(domain)
        if trunk is None or challenges >= MOST_CHALLENGES:
            return False
        client = self._clients.get((domain, target))
        if client is None:
            realm = trunk.realm or trunk.wire
            client = DigestClient(trunk.user, trunk.password, realm=realm, peer=_name(target), random=self._random)
            self._clients[domain, target] = client
        if nonce != client.nonce:
            client.accepted()  # this request knew nothing of the present challenge: another one is no refusal
        try:
            if client.take_challenge(response, _name(target)):
                return True
        except RemoteProtocolError as error:
            log.warning("a challenge of %s cannot be read: %s", _name(target), error)
            return False
        log.warning("%s does not let us in as %s, or asks in another realm", _name(target), trunk.user)
        return False

    def accepted(self, domain: str, target: Target, nonce: str) -> None:
        """A request with credentials was let through."""
        client = self._clients.get((domain, target))
        if client is not None and client.nonce == nonce:
            client.accepted()

    def authorize(self, domain: str, target: Target, request: SipRequest) -> tuple[str, str, str] | None:
        """Header name, value, and the nonce in it; None without a challenge of this target."""
        client = self._clients.get((domain, target))
        given = None if client is None else client.authorize(request.method, request.uri_text, request.body)
        return None if client is None or given is None else (*given, client.nonce)


def _name(target: Target) -> str:
    return f"{target.transport}:{target.host}:{target.port}:{target.server_name}"
