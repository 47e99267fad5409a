"""The downgrade matrix: every requirement, form and link, over real sockets against a real server (T11, G-01 to G-05, SEC-30).

Each combination is delivered with what it requires, octet for octet, or fails with a reason; none is delivered with less.
"""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest

from comity.bindings.base import HostPort
from comity.client import Client, ClientError, Received, connect, text_object
from comity.client.xmpp import XmppClient
from comity.cpim.address import Address
from comity.cpim.operations import MimeObject, Reason, Report, Requirement, Response, Status
from comity.secure import LocalCa, new_identity, sign
from tests.cpim.test_protection import PGP_ENCRYPTED, enveloped
from tests.paths.conftest import FAST
from tests.paths.kit import ALICE, BOB, PASSWORD, ServerProcess, Via

NOBODY = Address.parse("im:nobody@a.test")
TLS, SIGNED, ENCRYPTED = Requirement.TLS, Requirement.SIGNED, Requirement.ENCRYPTED
SETS = [frozenset(some) for n in range(4) for some in itertools.combinations(Requirement, n)]
Form = Literal["plain", "multipart", "signed-data", "enveloped", "pgp"]
FORMS: tuple[Form, ...] = ("plain", "multipart", "signed-data", "enveloped", "pgp")
IS: dict[Form, set[Requirement]] = {
    "plain": set(),
    "multipart": {SIGNED},
    "signed-data": {SIGNED},
    "enveloped": {SIGNED, ENCRYPTED},  # whether a signature stands inside no hop can see
    "pgp": {SIGNED, ENCRYPTED},
}


@dataclass(frozen=True)
class Link:
    """How somebody is connected."""

    via: Via
    transport: Literal["udp", "tcp", "tls"]
    is_protected: bool
    is_stripped: bool = False
    """True: somebody on the path takes STARTTLS away (T12)."""

    def __str__(self) -> str:
        return f"{self.via}-{self.transport}{'-stripped' if self.is_stripped else ''}"


LINKS = [
    Link("sip", "udp", False),
    Link("sip", "tcp", False),
    Link("sip", "tls", True),
    Link("xmpp", "tcp", True),
    Link("xmpp", "tls", True),
    Link("xmpp", "tcp", False, is_stripped=True),
]


def run(work: Coroutine[None, None, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(120):
            await work

    asyncio.run(bounded())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that lets this machine sign in without TLS."""
    server = ServerProcess(tmp_path_factory.mktemp("open"), FAST)
    config = server.config.read_text("utf-8") + '\n[policy]\nplaintext_from = ["127.0.0.0/8"]\n'
    server.config.write_text(config, "utf-8")
    server.start()
    yield server
    assert server.stop() == 0


STARTTLS = b"urn:ietf:params:xml:ns:xmpp-tls"


@asynccontextmanager
async def stripping(
    server: ServerProcess, *names: bytes, begin: asyncio.Event | None = None
) -> AsyncIterator[HostPort]:
    """Somebody between client and server who takes the offer of STARTTLS away, and other names, once ``begin`` is set."""
    tasks: set[asyncio.Task[None]] = set()

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                for name in (STARTTLS, *names) if begin is None or begin.is_set() else ():
                    data = data.replace(name, b"x" * len(name))
                sink.write(data)
                await sink.drain()
        except ConnectionError:
            pass
        finally:
            sink.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far, out = await asyncio.open_connection(*server.port("xmpp", "tcp"))
        for task in (asyncio.ensure_future(pump(reader, out)), asyncio.ensure_future(pump(far, writer))):
            tasks.add(task)

    proxy = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield proxy.sockets[0].getsockname()[:2]
    finally:
        proxy.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await proxy.wait_closed()


async def signed_in(
    stack: AsyncExitStack, server: ServerProcess, link: Link, who: object, *, receive: bool = True
) -> Client:
    address = ALICE if who == "alice" else BOB
    port = server.port(link.via, link.transport)
    if link.is_stripped:
        port = await stack.enter_async_context(stripping(server))
    client = connect(
        link.via,
        address,
        PASSWORD,
        server=port,
        transport=link.transport,
        ca_file=server.authority,
        allow_plaintext=link.is_stripped,
        receive=receive,
        patience=0,
    )
    return await stack.enter_async_context(client)


def things() -> dict[Form, MimeObject]:
    """One object of each form, each new."""
    when = datetime.now(UTC)
    identity = new_identity(ALICE, ca=LocalCa.create("Test authority", when=when), when=when)
    plain = text_object(ALICE, BOB, "in the clear")
    return {
        "plain": plain,
        "multipart": sign(plain, identity, when=when),
        "signed-data": sign(plain, identity, when=when, form="signed-data"),
        "enveloped": MimeObject.of(
            "application/pkcs7-mime; smime-type=enveloped-data", enveloped(plain.entity + b"." * 600)
        ),
        "pgp": PGP_ENCRYPTED,
    }


class Reports:
    """Failure reports about Alice's messages, by the key she gave them."""

    def __init__(self, alice: Client) -> None:
        self._reports: dict[str, asyncio.Future[Report]] = {}
        self._task = asyncio.ensure_future(self._read(alice))

    async def _read(self, alice: Client) -> None:
        async for received in alice.messages():
            if received.report is not None:
                self.of(received.report.native_id).set_result(received.report)

    def of(self, key: str) -> asyncio.Future[Report]:
        return self._reports.setdefault(key, asyncio.get_running_loop().create_future())

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def failed(answer: Response, report: asyncio.Future[Report]) -> tuple[Reason | None, str]:
    """Why it failed: said at once, or reported."""
    if answer.status is Status.FAILURE:
        return answer.reason, answer.text
    told = await report
    return told.reason, told.text


@pytest.mark.parametrize("sink", LINKS, ids=str)
@pytest.mark.parametrize("source", LINKS, ids=str)
def test_whatever_is_required_is_kept_or_fails(server: ServerProcess, source: Link, sink: Link) -> None:
    """8 sets of requirements, 5 forms; 6 by 6 links."""

    async def story() -> None:
        made = things()
        async with AsyncExitStack() as stack:
            bob = await signed_in(stack, server, sink, "bob")
            alice = await signed_in(stack, server, source, "alice")
            reports = Reports(alice)
            answers: dict[str, asyncio.Future[Response]] = {}
            kept: list[tuple[Form, frozenset[Requirement]]] = []
            keys: dict[str, tuple[Form, frozenset[Requirement]]] = {}
            got: list[Received] = []

            ended = asyncio.Event()

            async def listen() -> None:
                async for received in bob.messages():  # asking for the next one takes the last
                    got.append(received)
                    if received.text == "the end":
                        got.pop()
                        ended.set()

            listening = asyncio.ensure_future(listen())
            for number, (form, wanted) in enumerate(itertools.product(FORMS, SETS)):
                fits_udp = form in ("plain", "pgp") or "udp" not in (source.transport, sink.transport)
                is_open = TLS in wanted and not (source.is_protected and sink.is_protected)
                key = f"{source}-{sink}-{number}"
                keys[key] = form, wanted
                answers[key] = alice.send(made[form], BOB, key=key, requirements=wanted)
                if not is_open and wanted - {TLS} <= IS[form] and fits_udp:
                    kept.append((form, wanted))
            said = dict(zip(answers, await asyncio.gather(*answers.values()), strict=True))
            await alice.send(text_object(ALICE, BOB, "the end"), BOB)
            await ended.wait()
            for key, (form, wanted) in keys.items():
                if (form, wanted) in kept:
                    assert said[key].status is not Status.FAILURE, (form, wanted, said[key])
                    continue
                reason, text = await failed(said[key], reports.of(key))
                is_large = form not in ("plain", "pgp") and "udp" in (source.transport, sink.transport)
                # "policy-violation" is the XMPP word for a size too (T1).
                too_large = {Reason.SIZE, Reason.DENIED} if is_large else set()
                assert reason in {Reason.PROTECTION, *too_large}, (form, wanted, reason, text)
                assert text, "a failure says why"
            await reports.end()
            while await asyncio.to_thread(server.waiting):
                pass
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        arrived = [(octets_form(made, each), each.requirements) for each in got]
        assert arrived == kept, "in order, each with what it requires, and nothing else"

    run(story())


def octets_form(made: dict[Form, MimeObject], received: Received) -> Form:
    """Which of the objects this is, octet for octet."""
    return next(form for form, thing in made.items() if thing.entity == received.object.entity)


def test_a_server_that_says_nothing_of_requirements_is_sent_nothing(server: ServerProcess) -> None:
    """XMPP drops in silence a child it does not know: the client asks before it relies on it."""

    async def story() -> None:
        async with AsyncExitStack() as stack:
            port = await stack.enter_async_context(stripping(server, b"urn:comity:protection:0"))
            client = connect("xmpp", ALICE, PASSWORD, server=port, allow_plaintext=True, patience=0)
            alice = await stack.enter_async_context(client)
            bob = await stack.enter_async_context(server.client("xmpp", BOB))
            thing = things()["multipart"]
            refused = await alice.send(thing, BOB, requirements={SIGNED})
            assert (refused.status, refused.reason) == (Status.FAILURE, Reason.PROTECTION)
            assert "does not say" in refused.text
            await alice.send(thing, BOB)
            received = await anext(bob.messages())
            assert received.requirements == set(), "only the one that requires nothing came"

    run(story())


def test_a_connection_lost_before_the_server_said_is_not_a_server_that_keeps_nothing(server: ServerProcess) -> None:
    """Who asks again by another connection may succeed: it is no answer about requirements."""

    async def story() -> None:
        async with AsyncExitStack() as stack:
            port = await stack.enter_async_context(stripping(server, b"server-features"))  # the answer never comes
            client = connect("xmpp", ALICE, PASSWORD, server=port, allow_plaintext=True, patience=0)
            alice = await stack.enter_async_context(client)
            assert isinstance(alice, XmppClient)
            sending = [alice.send(text_object(ALICE, BOB, "x"), BOB, requirements={TLS}) for _ in range(2)]
            for _ in range(3):  # the first asks the server, the second waits behind it
                await asyncio.sleep(0)
            assert alice._features is not None
            assert alice._link is not None
            alice._link.abort()
            for answer in sending:
                with pytest.raises(ClientError, match="connection"):
                    await answer

    run(story())


def test_a_stream_that_was_under_tls_never_goes_on_without(server: ServerProcess) -> None:
    """T12: what waits on it may have to stay under TLS, whatever the client was told to allow."""

    async def story() -> None:
        async with AsyncExitStack() as stack:
            begin = asyncio.Event()
            port = await stack.enter_async_context(stripping(server, begin=begin))
            client = connect("xmpp", ALICE, PASSWORD, server=port, ca_file=server.authority, allow_plaintext=True)
            alice = await stack.enter_async_context(client)
            assert isinstance(alice, XmppClient)
            answer = await alice.send(text_object(ALICE, NOBODY, "x"), NOBODY, requirements={TLS})
            assert answer.text == "There is no such user here.", "so far the server looked at it"
            begin.set()
            assert alice._link is not None
            alice._link.abort()
            with pytest.raises(ClientError, match="encryption-required"):
                await alice.send(text_object(ALICE, NOBODY, "y"), NOBODY, requirements={TLS})

    run(story())


@pytest.mark.parametrize("via", ["sip", "xmpp"])
def test_the_command_says_what_is_missing(server: ServerProcess, tmp_path: Path, via: Via) -> None:
    """comity send --require: exit code 1 and the sentence."""
    password = tmp_path / "password"
    password.write_text(PASSWORD, "utf-8")
    host, port = server.port(via, "tls")
    command = [sys.executable, "-m", "comity", "send", "--from", ALICE.uri, "--to", BOB.uri, "--via", via]
    command += ["--server", f"{host}:{port}", "--transport", "tls", "--ca", str(server.authority)]
    command += ["--password-file", str(password), "--require", "tls", "--json"]
    kept = subprocess.run([*command, "hello"], capture_output=True, text=True, check=False, timeout=60)
    assert kept.returncode == 0, kept.stderr
    missing = subprocess.run(
        [*command, "--require", "signed", "hello"], capture_output=True, text=True, check=False, timeout=60
    )
    assert missing.returncode == 1
    assert "The message must be signed and is not." in missing.stdout + missing.stderr


def test_a_requirement_outlives_the_server(tmp_path: Path) -> None:
    """Stored for Bob, who is away; the server is killed; he comes back without TLS: nothing for him, a report for Alice."""

    async def before(server: ServerProcess) -> None:
        async with server.client("xmpp", ALICE, receive=False) as alice:
            answer = await alice.send(text_object(ALICE, BOB, "secret"), BOB, key="k1", requirements={TLS})
            assert answer.status is Status.INDETERMINANT
            await alice.send(text_object(ALICE, BOB, "open"), BOB)

    async def after(server: ServerProcess) -> None:
        async with server.client("sip", BOB, "udp") as bob, server.client("xmpp", ALICE) as alice:
            messages = bob.messages()
            assert (await anext(messages)).text == "open"
            taking = asyncio.ensure_future(anext(messages))  # a server that stops waits for those not taken
            told = await anext(alice.messages())
            assert told.report is not None
            assert "not connected under TLS" in told.report.text
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)

    with ServerProcess(tmp_path) as server:
        server.start()
        run(before(server))
        server.kill()
        server.start()
        run(after(server))
        assert server.stop() == 0
