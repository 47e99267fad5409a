"""XCAP over HTTP: who asks, and requests and answers as aiohttp has them (RFC 4825 section 8, RFC 7616).

Place on the path: beside it, between ``net/https.py`` (sockets, TLS) and ``resources.py`` (what is done). Nothing of a body is read
before its sender proved the account's password by digest, with the same HA1 as for SIP. Everybody's own documents are all there
is: another's tree is 403 whether it exists or not.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Final

from aiohttp import web

from comity.bindings.sip.digest import DigestServer, Verdict
from comity.bindings.sip.headers import AuthParams
from comity.cpim.address import Address
from comity.errors import AddressError, RemoteProtocolError, StoreError
from comity.service.interfaces import Accounts, Clock, Credentials
from comity.xcap.errors import Refused
from comity.xcap.exchange import Answer, Request, refusal, target_of, user_of
from comity.xcap.resources import LARGEST, Resources
from comity.xcap.uri import Target

log = logging.getLogger(__name__)

#: Seconds after which a client may try again what the store could not do.
RETRY: Final = "30"
_MOST_CREDENTIALS: Final = 4


class XcapHandler:
    """Answers requests.

    Args:
        resources: what is asked about.
        accounts: whose passwords count.
        domains: served domains, the first for who names none.
        clock: time of nonces.
        is_md5_offered: after SHA-256 ([policy] sip_md5).
    """

    def __init__(
        self,
        resources: Resources,
        accounts: Accounts,
        domains: Sequence[str],
        clock: Clock,
        *,
        is_md5_offered: bool = True,
    ) -> None:
        self._resources = resources
        self._accounts = accounts
        self._domains = domains
        self._clock = clock
        self._digest = DigestServer(secrets.token_bytes(32), is_md5_offered=is_md5_offered)

    async def handle(self, request: web.BaseRequest, proved: Callable[[], None]) -> web.StreamResponse:
        """Answer one request; ``proved`` is called when its sender is known to be an account here."""
        try:
            answer = await self._answer(request, proved)
        except Refused as refused:
            answer = refusal(refused)
        except StoreError as error:
            log.error("an XCAP request could not be carried out: %s", error)
            answer = Answer(503, {"Retry-After": RETRY})
        # A body that was not read is not waited for.
        is_closing = answer.status in (401, 403, 413) and request.can_read_body
        return _response(request, answer, is_closing=is_closing)

    async def _answer(self, request: web.BaseRequest, proved: Callable[[], None]) -> Answer | web.Response:
        target = target_of(request.raw_path)
        realm = self._realm(target, request)
        host = request.remote or ""
        if self._accounts.guard().is_banned(host):
            raise Refused(403, "this address has to wait after too many wrong passwords")
        user = await self._user(request, realm, host)
        if not isinstance(user, Address):
            return self._challenge(realm, host, is_stale=user)
        proved()
        owner = None if target.user is None else user_of(target.user, realm)
        if target.user is not None and (owner is None or owner.key != user.key):
            raise Refused(403, "documents belong to their account")
        if "Content-Encoding" in request.headers:
            raise Refused(415, "bodies are taken as they are, not compressed")
        body = await _body(request) if request.method == "PUT" else b""
        return await self._resources.answer(
            Request(
                request.method,
                target,
                user,
                owner,
                host,
                request.headers.get("Content-Type", ""),
                _joined(request, "If-Match"),
                _joined(request, "If-None-Match"),
                body,
            )
        )

    # --- who asks ----------------------------------------------------------------------------------------------

    def _realm(self, target: Target, request: web.BaseRequest) -> str:
        """The domain whose user asks: that of the tree, else that of the server's name ("xcap.DOMAIN", RFC 4825 section 6.1)."""
        if target.user is not None and "@" in target.user:
            address = user_of(target.user, "")
            if address is None or not self._accounts.serves(address.domain):
                raise Refused(404, "there is no such user")
            return address.domain
        name = request.headers.get("Host", "").partition(":")[0].lower()
        for domain in (name, name.removeprefix("xcap.")):
            if domain in self._domains:
                return domain
        return self._domains[0]

    async def _user(self, request: web.BaseRequest, realm: str, host: str) -> Address | bool:
        """Who proved the password; else whether credentials were right but their nonce is over."""
        given = self._digest.select(_credentials(request), realm)
        if given is None or given.get("qop") == "auth-int":
            return False
        address = _named(given.get("username"), realm)
        credentials: Credentials | None = None
        if address is not None:
            credentials = await self._accounts.credentials(address)
        verdict = self._digest.check(
            given,
            method=request.method,
            request_uri=request.raw_path,
            body=b"",
            ha1_values=None if credentials is None else credentials.ha1,
            flow=host,
            now=self._clock.now(),
        )
        if verdict is Verdict.ACCEPTED and credentials is not None:
            self._accounts.guard().succeeded(host)
            return credentials.address.folded()
        if verdict is Verdict.REFUSED:
            self._accounts.guard().failed(host, address)
        return verdict is not Verdict.REFUSED

    def _challenge(self, realm: str, host: str, *, is_stale: bool) -> web.Response:
        response = web.Response(status=401, text="A password is needed.\n")
        # COMPAT urllib, and xcaplib (Blink) with it: looks at the first challenge only and knows no SHA-256. So the weaker one comes
        # first here, where everything is under TLS anyway.
        for value in reversed(self._digest.challenges(realm, host, self._clock.now(), is_stale=is_stale)):
            response.headers.add("WWW-Authenticate", value)
        return response


def _credentials(request: web.BaseRequest) -> list[AuthParams]:
    values = request.headers.getall("Authorization", [])[:_MOST_CREDENTIALS]
    try:
        return [AuthParams.parse(value) for value in values]
    except RemoteProtocolError as error:
        raise Refused(400, error.reason) from None


def _named(username: str, realm: str) -> Address | None:
    """The account a digest username names: ``alice``, ``alice@realm`` or with ``sip:``."""
    try:
        return Address.im(username.removeprefix("sip:").removesuffix(f"@{realm}"), realm)
    except AddressError:
        return None


def _joined(request: web.BaseRequest, name: str) -> str | None:
    values = request.headers.getall(name, [])
    return ",".join(values) if values else None


async def _body(request: web.BaseRequest) -> bytes:
    """What is put, as far as there is a use for it."""
    if request.content_length is not None and request.content_length > LARGEST:
        raise Refused(413, f"a document has at most {LARGEST} octets")
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    parts: list[bytes] = []
    size = 0
    async for part in request.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > LARGEST:
            raise Refused(413, f"a document has at most {LARGEST} octets")
    return b"".join(parts)


def _response(request: web.BaseRequest, answer: Answer | web.Response, *, is_closing: bool) -> web.Response:
    response = (
        answer
        if isinstance(answer, web.Response)
        else web.Response(status=answer.status, headers=answer.headers, body=answer.body)
    )
    response.headers["Server"] = "Comity"
    # Documents change under a cache's feet (RFC 4825 section 9), and are nobody else's.
    response.headers["Cache-Control"] = "no-cache, private"
    if is_closing:
        response.force_close()
    return response
