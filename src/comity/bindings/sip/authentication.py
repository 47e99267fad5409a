"""Who sends a request: digest credentials checked against the account, or a challenge (RFC 3261 section 22).

Place on the path: before step 4, for ``binding.py``. What it lets through has a *principal*; everything else is
answered here. Headers a stranger could set to be believed (P-Asserted-Identity, P-Preferred-Identity,
Remote-Party-ID, Identity) are never read (S-07, S-55).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from comity.bindings.sip.digest import DigestServer, Verdict
from comity.bindings.sip.headers import AuthParams
from comity.bindings.sip.requests import Request
from comity.bindings.sip.uri import SipUri
from comity.cpim.address import Address
from comity.errors import AddressError
from comity.service.interfaces import Credentials

if TYPE_CHECKING:
    from comity.bindings.sip.binding import SipBinding

_OLD_BARESIP = re.compile(r"baresip v?[01]\.")
#: How long credentials read from the store may be used without asking again, seconds.
CREDENTIALS_AGE = 2.0
#: Accounts of which that is remembered, real ones or not.
MOST_AT_HAND = 10_000
#: Seconds of the epoch from which nonces count theirs , which 5 octets of milliseconds do until 2058.
NONCE_EPOCH = 1_700_000_000.0


class Authentication:
    """The server's side of digest for all links."""

    def __init__(self, binding: SipBinding, digest: DigestServer) -> None:
        self._binding = binding
        self._digest = digest
        self._credentials: OrderedDict[str, tuple[float, Credentials | None]] = OrderedDict()
        self._offset = 0.0
        """From the clock's seconds to those of nonces."""

    async def start(self) -> None:
        """Go on with the nonces of the process before this one: their key and their time outlive it."""
        clock = self._binding.service.clock
        # The wall clock is read once: it may jump (F-27), nonces may not.
        self._offset = max(0.0, clock.when().timestamp() - NONCE_EPOCH) - clock.now()
        self._digest.go_on(await self._binding.service.secret("sip-nonces"), self._now())

    def _now(self) -> float:
        return self._binding.service.clock.now() + self._offset

    def realm(self, received: Request) -> str | None:
        """The domain whose user sends a MESSAGE; answers 403 itself where that is none of ours (S-02, S-13)."""
        uri = received.request.from_.uri
        domain = uri.host if isinstance(uri, SipUri) else uri.rest.rpartition("@")[2].partition("?")[0].lower()
        if uri.scheme not in ("sip", "sips", "im", "pres") or not self._binding.service.accounts.serves(domain):
            self._binding.respond(received, 403, forget=True)
            return None
        return domain

    def select(self, received: Request, realm: str) -> AuthParams | None:
        """The Digest credentials of a request that are meant for ``realm``."""
        request = received.request
        given = [*request.credentials("authorization"), *request.credentials("proxy-authorization")]
        return self._digest.select(given, realm)

    def at_hand(self, given: AuthParams, realm: str) -> tuple[Credentials | None] | None:
        """What was read of the account a moment ago, also that there is none: who asks twice must not learn that from the
        time it takes (X-33). None if it has to be looked up."""
        address = _user(given.get("username"), realm)
        if address is None:
            return (None,)
        cached = self._credentials.get(address.key)
        if cached is None or cached[0] + CREDENTIALS_AGE < self._binding.service.clock.now():
            return None
        return (cached[1],)

    async def look_up(self, given: AuthParams, realm: str) -> Credentials | None:
        """Credentials of the account from the store."""
        address = _user(given.get("username"), realm)
        if address is None:
            return None
        credentials = await self._binding.service.accounts.credentials(address)
        now = self._binding.service.clock.now()
        self._credentials.pop(address.key, None)
        self._credentials[address.key] = (now, credentials)
        while (
            next(iter(self._credentials.values()))[0] + CREDENTIALS_AGE < now or len(self._credentials) > MOST_AT_HAND
        ):
            self._credentials.popitem(last=False)
        return credentials

    def verify(
        self, received: Request, realm: str, given: AuthParams, credentials: Credentials | None
    ) -> Address | None:
        """The user if the request proves the password; else the request is answered 401."""
        state, request = received.state, received.request
        now = self._binding.service.clock.now()
        ha1_values: Mapping[str, str] | None = None if credentials is None else credentials.ha1
        verdict = self._digest.check(
            given,
            method=request.method,
            request_uri=request.uri_text,
            body=request.body,
            ha1_values=ha1_values,
            flow=received.flow,
            now=self._now(),
        )
        host = received.source[0]
        if verdict is Verdict.ACCEPTED and credentials is not None:
            self._binding.service.accounts.guard().succeeded(host)
            state.session.prove(received.source, now)
            if state.transport != "udp":
                state.link.authenticated()
            return credentials.address
        if verdict is Verdict.REFUSED:
            state.failures += 1
            self._binding.service.accounts.guard().failed(host, _user(given.get("username"), realm))
        self.challenge(received, realm, is_stale=verdict is not Verdict.REFUSED)
        if state.transport != "udp" and state.failures >= self._binding.config.failures_per_connection:
            state.link.close()
        return None

    def challenge(self, received: Request, realm: str, *, is_stale: bool = False) -> None:
        """Answer 401 with a fresh nonce for this flow."""
        values = self._digest.challenges(realm, received.flow, self._now(), is_stale=is_stale)
        if len(values) > 1 and _OLD_BARESIP.match(received.request.value("user-agent") or ""):
            # COMPAT baresip < 2: gives up at the first challenge whose algorithm is not MD5.
            values = values[-1:]
        self._binding.respond(received, 401, headers=[("WWW-Authenticate", value) for value in values], forget=True)


@lru_cache(maxsize=4096)
def _user(username: str, realm: str) -> Address | None:
    """The account a digest username names: ``alice`` or ``alice@realm``."""
    try:
        return Address.im(username.removesuffix(f"@{realm}"), realm)
    except AddressError:
        return None
