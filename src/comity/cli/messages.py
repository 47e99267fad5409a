"""``comity send`` and ``comity listen``.

Place on the path: at both of its ends. They are a person's client, never part of a server: keys and trust come from
``COMITY_HOME``, and a verdict is made here, from the octets as they arrived.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from comity.cli.arguments import address_of
from comity.cli.dissect import MAX_FILE
from comity.cli.output import NEGATIVE, as_json, fail, print_json, printable, read_input
from comity.client import Client, ClientError, Received, connect, terse, text_object
from comity.cpim.address import Address
from comity.cpim.compose import PLAIN
from comity.cpim.native import readable_part
from comity.cpim.operations import HistoryEntry, MimeObject, Requirement, Response, Status
from comity.cpim.protection import read_requirements
from comity.secure import KeyStore, ReplayCache, TrustStore, Verdict, VerdictKind, canonical_text, verify
from comity.secure import sign as make_signature

Via = Literal["sip", "xmpp"]
Transport = Literal["udp", "tcp", "tls"]
Command = TypeVar("Command", bound=Callable[..., Any])

MAX_PASSWORD_FILE = 4096


@dataclass(frozen=True, slots=True)
class SignIn:
    """Who signs in, where and how."""

    via: Via
    address: Address
    password: str = field(repr=False)
    server: tuple[str, int] | None
    transport: Transport | None
    ca_file: Path | None

    def connect(self, *, receive: bool) -> Client:
        """A client that signs in when it is entered."""
        return connect(
            self.via,
            self.address,
            self.password,
            server=self.server,
            transport=self.transport,
            ca_file=self.ca_file,
            receive=receive,
        )


def _via(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if value == "apex":
        raise click.UsageError("APEX comes with a later version. Use --via sip or --via xmpp.")
    return value


def _server(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, int] | None:
    if value is None:
        return None
    host, colon, port = value.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise click.BadParameter(f'"{value}" is not HOST:PORT. Write it like 127.0.0.1:5060 or [::1]:5060.')
    return host, int(port)


def sign_in_options(command: Command) -> Command:
    """The options of every command that signs in somewhere."""
    path = click.Path(path_type=Path)
    for option in reversed(
        (
            click.option(
                "--via",
                type=click.Choice(["sip", "xmpp", "apex"]),
                required=True,
                callback=_via,
                help="The protocol to sign in by.",
            ),
            click.option(
                "--server", metavar="HOST:PORT", callback=_server, help="By default the address' domain is asked."
            ),
            click.option(
                "--transport",
                type=click.Choice(["udp", "tcp", "tls"]),
                help="For XMPP tcp becomes TLS before the password is sent, tls is TLS from the first octet.",
            ),
            click.option("--ca", type=path, metavar="FILE", help="Believe servers by this authority (PEM)."),
            click.option("--password-file", type=path, metavar="FILE", help="First line: the password."),
        )
    ):
        command = option(command)
    return command


def _password(file: Path | None, address: Address) -> str:
    """The password: of the file, else of COMITY_PASSWORD, else asked for; never an argument (B-02)."""
    if file is None:
        given = os.environ.get("COMITY_PASSWORD")
        return given or str(click.prompt(f"Password of {printable(str(address))}", hide_input=True, err=True))
    lines = read_input(str(file), MAX_PASSWORD_FILE).splitlines()
    if not lines or not lines[0]:
        fail(f"{file} holds no password on its first line.")
    try:
        return lines[0].decode("utf-8")
    except UnicodeDecodeError:
        fail(f"The password in {file} is not UTF-8.")


def _sign_in(via: Via, address: Address, options: dict[str, Any]) -> SignIn:
    password = _password(options["password_file"], address)
    return SignIn(via, address, password, options["server"], options["transport"], options["ca"])


# --- send -------------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("text", metavar="[TEXT|-]", default="-")
@click.option("--from", "from_", metavar="ADDRESS", required=True, help="Who signs in and sends.")
@click.option("--to", metavar="ADDRESS", required=True, help="Who shall get it.")
@sign_in_options
@click.option("--sign", "is_signed", is_flag=True, help="Sign it with the key that COMITY_HOME has for --from.")
@click.option(
    "--no-certificate", "is_bare", is_flag=True, help="Sign without the certificate, for who has it: over SIP by UDP."
)
@click.option("--type", "content_type", default=PLAIN, show_default=True, help="Content-Type of TEXT.")
@click.option(
    "--require",
    "required",
    type=click.Choice([requirement.value for requirement in Requirement]),
    multiple=True,
    help="What every hop must keep, or fail the message; may be given more than once.",
)
@click.option("--forge-from", metavar="ADDRESS", help="Claim to be somebody else, to see it refused.")
@as_json
def send(
    *,
    text: str,
    from_: str,
    to: str,
    via: Via,
    is_signed: bool,
    is_bare: bool,
    content_type: str,
    required: tuple[str, ...],
    forge_from: str | None,
    as_json: bool,
    **sign_in: Any,
) -> None:
    """Send TEXT, or standard input, as one message/cpim object.

    Exit code 0: delivered, or accepted and stored; 1: refused, with the reason.

    \b
    Examples:
      comity send --from im:alice@example.org --to im:bob@example.org --via sip --sign 'Hello Bob'
      comity send --from im:bob@example.org --to im:alice@example.org --via xmpp < letter.txt
    """
    sender, recipient = address_of(from_), address_of(to)
    claimed = address_of(forge_from) if forge_from else None
    obj = text_object(claimed or sender, recipient, _content(text, content_type), content_type)
    forms = _signed(obj, sender, is_bare=is_bare) if is_signed else [obj]
    requirements = read_requirements(required)
    obj, response = asyncio.run(_send(_sign_in(via, sender, sign_in), recipient, forms, claimed, requirements))
    is_refused = response.status is Status.FAILURE
    reason = response.reason.value if response.reason else ""
    if as_json:
        facts = {"sha256": obj.fingerprint, "status": response.status.value, "reason": reason}
        print_json({**facts, "text": response.text, "form": response.form})
    else:
        form = f" ({response.form})" if response.form else ""
        click.echo(f"sha256   {obj.fingerprint}\noutcome  {response.status.value}{form}")
    if is_refused:
        fail(f"Refused: {': '.join(part for part in (reason, response.text) if part)}", NEGATIVE)


def _content(text: str, content_type: str) -> bytes:
    """The octets to send; text gets the line ends that signing demands (SEC-14)."""
    octets = read_input("-", MAX_FILE) if text == "-" else os.fsencode(text)
    if content_type == PLAIN:
        try:
            octets.decode("utf-8")
        except UnicodeDecodeError:
            fail("The text is not UTF-8. Say what it is, as in --type 'text/plain; charset=iso-8859-1'.")
    return canonical_text(octets) if content_type.lower().startswith("text/") else octets


def _signed(obj: MimeObject, sender: Address, *, is_bare: bool) -> list[MimeObject]:
    """The object signed: in the form that everybody can read, and in a smaller one for where there is no room (SEC-12)."""
    sign = partial(make_signature, obj, KeyStore().load(sender), when=datetime.now(UTC), with_certificate=not is_bare)
    return [sign(), terse(sign(form="signed-data"))]


async def _send(
    sign_in: SignIn,
    recipient: Address,
    forms: Sequence[MimeObject],
    claimed: Address | None,
    requirements: frozenset[Requirement],
) -> tuple[MimeObject, Response]:
    """Send the first form that there is room for; what was sent, and what the server said."""
    async with _connected(sign_in, receive=False) as client:
        obj = next((form for form in forms if client.has_room(form, recipient, requirements)), forms[0])
        return obj, await client.send(obj, recipient, from_=claimed, requirements=requirements)


@asynccontextmanager
async def _connected(sign_in: SignIn, *, receive: bool) -> AsyncIterator[Client]:
    """A signed-in client; a refused sign-in or a lost connection ends the command with its sentence."""
    try:
        async with sign_in.connect(receive=receive) as client:
            yield client
    except ClientError as error:
        fail(str(error), NEGATIVE)


# --- listen -----------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("address")
@sign_in_options
@click.option("--count", type=click.IntRange(1), help="End after so many messages.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), help="End after so many seconds.")
@as_json
def listen(*, address: str, via: Via, count: int | None, timeout: float | None, as_json: bool, **sign_in: Any) -> None:
    """Sign in as ADDRESS and print each message with its verdict, a line for each.

    The verdict is made here, by the trust of COMITY_HOME. Without --count and --timeout it goes on until Ctrl-C.
    Exit code 0: as many messages came as --count says; 1: they did not.

    \b
    Examples:
      comity listen im:bob@example.org --via xmpp
      comity listen im:alice@example.org --via sip --count 1 --timeout 30 --json
    """
    whose = address_of(address)
    listener = Listener(KeyStore().trust_store(), as_json)
    try:
        asyncio.run(_listen(_sign_in(via, whose, sign_in), listener, count, timeout))
    except asyncio.CancelledError:
        click.echo("comity: stopped listening", err=True)
    if count is not None and listener.seen < count:
        fail(f"{listener.seen} of {count} messages came.", NEGATIVE)


class Listener:
    """Judges and prints what arrives for one person.

    Args:
        trust: whom they trust.
        as_json: one JSON object a line, for scripts.
    """

    def __init__(self, trust: TrustStore, as_json: bool) -> None:
        self.seen = 0
        self._trust = trust
        self._replay = ReplayCache()
        self._as_json = as_json

    def show(self, received: Received, now: datetime) -> None:
        """Print one message, or on stderr that one of theirs was not delivered; ``now`` is aware UTC."""
        if received.report is not None:
            report = received.report
            sentence = f"not delivered to {report.recipient}: {report.reason.value}: {report.text}"
            click.echo(f"comity: {printable(sentence)}", err=True)
            return
        verdict = verify(
            received.object,
            self._trust,
            now=now,
            expected_from=received.from_,
            expected_to=received.to,
            replay=self._replay,
            asserted_by=received.asserted_by,
            arrived=received.arrived,
        )
        self.seen += 1
        text = _text(received, verdict)
        if self._as_json:
            print_json(_fields(received, verdict, text))
        else:
            shown = printable(text) if text is not None else f"({printable(received.object.media_type)})"
            click.echo(f"{printable(str(received.from_))}: {shown}  [{phrase(verdict)}; sha256 {verdict.sha256[:16]}]")


async def _listen(sign_in: SignIn, listener: Listener, count: int | None, seconds: float | None) -> None:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):  # sign out before it ends, so that the server need not find out
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        async with asyncio.timeout(seconds) as limit, _connected(sign_in, receive=True) as client:
            click.echo(f"comity: listening as {printable(str(sign_in.address))} by {sign_in.via}", err=True)
            messages = aiter(client.messages())
            async for received in messages:
                listener.show(received, datetime.now(UTC))
                if listener.seen == count:
                    await _take_last(messages)
                    return
    except TimeoutError:
        if not limit.expired():  # the network's own, not ours
            raise


async def _take_last(messages: AsyncIterator[Received]) -> None:
    """Tell the server that the last message is ours: asking for the next one does, waiting for it is not needed."""
    asking = asyncio.ensure_future(anext(messages))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


def _text(received: Received, verdict: Verdict) -> str | None:
    """What to show as the text: under "valid" nothing but what the signature covers (T8)."""
    if verdict.is_valid and verdict.content is not None:
        return readable_part(verdict.content)
    return received.text


def phrase(verdict: Verdict) -> str:
    """The verdict in words for a person, the names in it escaped."""
    if verdict.is_valid:
        return printable(f"valid, signed by {verdict.signer}")
    if verdict.verdict is VerdictKind.UNSIGNED and verdict.asserted_by:
        return printable(f"unsigned, asserted by {verdict.asserted_by}")
    return printable(f"{verdict.verdict.value}: {verdict.reason}")


def _fields(received: Received, verdict: Verdict, text: str | None) -> dict[str, object]:
    return {
        "from": str(received.from_),
        "to": str(received.to),
        "type": received.object.media_type,
        "sha256": verdict.sha256,
        "verdict": verdict.verdict.value,
        "text": text,
        "signer": verdict.signer,
        "reason": verdict.reason,
        "asserted_by": received.asserted_by,
        "delayed": received.is_delayed,
        "history": [_hop(entry) for entry in received.history],
    }


def _hop(entry: HistoryEntry) -> dict[str, str]:
    when = entry.when.isoformat()
    return {"node": entry.node, "in": entry.in_protocol, "out": entry.out_protocol, "time": when, "note": entry.note}
