"""``comity send``, and signing in, which it shares with ``comity listen``.

Place on the path: at its beginning. It is a person's client, never part of a server: keys and trust come from
``COMITY_HOME``. What is signed here gets its time from a clock that never gives one twice (SEC-23).
"""

from __future__ import annotations

import asyncio
import logging
import os
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
from comity.cli.encryption import encrypted_for, recipients_of, unverified_option
from comity.cli.identities import (
    Passphrase,
    first_line,
    is_asked,
    need_openpgp,
    openpgp_option,
    passphrase_option,
    signing_identity,
)
from comity.cli.output import NEGATIVE, as_json, fail, print_json, printable, read_input
from comity.client import Client, ClientError, connect, terse, text_object
from comity.cpim.address import Address
from comity.cpim.compose import PLAIN
from comity.cpim.delivered import in_words
from comity.cpim.imdn import DISPLAY, POSITIVE
from comity.cpim.operations import MimeObject, Requirement, Response, Status
from comity.cpim.protection import read_requirements
from comity.secure import Identity, KeyStore, canonical_text
from comity.secure import sign as make_signature
from comity.secure.clock import next_time
from comity.secure.openpgp import PgpIdentity

Via = Literal["sip", "xmpp", "apex"]
Transport = Literal["udp", "tcp", "tls"]
Command = TypeVar("Command", bound=Callable[..., Any])

PKCS7 = "application/pkcs7-mime"

HINTS = {
    "no address in DNS": "Say where the server is with --server HOST:PORT.",
    "certificate does not verify": "If it has an authority of its own, as comity init makes: --ca its ca.pem.",
    "not-authorized": "The password is wrong, or there is no such account.",
    "535 ": "The password is wrong, or there is no such account.",
    "554 another application": "Another program receives as this address by APEX, perhaps comity listen. End it first.",
    "401 Unauthorized": "The password is wrong, or there is no such account.",
    "407 Proxy": "The password is wrong, or there is no such account.",
    **dict.fromkeys(
        (
            "closed the connection",
            "wrong version number",
            "without a release of the session",
            "frame header that the grammar does not allow",
        ),
        "Is it another port, or another --transport (tls, tcp, udp)?",
    ),
}
"""What a person can do about an error, by the words in it."""


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
        # A failed handshake is in the error that ends the command; Python would write the log's line about it too.
        logging.getLogger("comity.net.network").addHandler(logging.NullHandler())
        return connect(
            self.via,
            self.address,
            self.password,
            server=self.server,
            transport=self.transport,
            ca_file=self.ca_file,
            receive=receive,
        )


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
                help="The protocol to sign in by.",
            ),
            click.option(
                "--server", metavar="HOST:PORT", callback=_server, help="By default the address' domain is asked."
            ),
            click.option(
                "--transport",
                type=click.Choice(["udp", "tcp", "tls"]),
                help="For XMPP and APEX tcp becomes TLS before the password is sent, tls is TLS from the first octet.",
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
        if not given and not is_asked():
            fail(
                f"There is no terminal to ask for the password of {address}. Give it with --password-file or COMITY_PASSWORD."
            )
        return given or str(click.prompt(f"Password of {printable(str(address))}", hide_input=True, err=True))
    try:
        return first_line(file, "password").decode("utf-8")
    except UnicodeDecodeError:
        fail(f"The password in {file} is not UTF-8.")


def signing_in(via: Via, address: Address, options: dict[str, Any]) -> SignIn:
    """The choices of ``sign_in_options``, with the password."""
    if options["transport"] == "udp" and via != "sip":
        raise click.UsageError(f"{via.upper()} needs a stream: --transport tcp or tls.")
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
@click.option("--encrypt", "is_encrypted", is_flag=True, help="Encrypt it, so that only --to can read it.")
@openpgp_option
@unverified_option
@passphrase_option
@click.option("--type", "content_type", default=PLAIN, show_default=True, help="Content-Type of TEXT.")
@click.option(
    "--require",
    "required",
    type=click.Choice([requirement.value for requirement in Requirement]),
    multiple=True,
    help="What every hop must keep, or fail the message; may be given more than once.",
)
@click.option(
    "--receipt",
    "wants_receipt",
    is_flag=True,
    help="Ask to be told when it was delivered and displayed (listen shows it).",
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
    is_encrypted: bool,
    is_openpgp: bool,
    to_unverified: bool,
    passphrase_file: Path | None,
    content_type: str,
    required: tuple[str, ...],
    wants_receipt: bool,
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
      comity send --from im:alice@example.org --to im:bob@example.org --via sip --sign --encrypt 'For you only'
    """
    sender, recipient = address_of(from_), address_of(to)
    claimed = address_of(forge_from) if forge_from else None
    if is_openpgp:
        need_openpgp()
    store, when = KeyStore(), datetime.now(UTC)
    readers, signer = [], None
    if is_encrypted:
        readers = recipients_of(store, [recipient], is_openpgp=is_openpgp, to_unverified=to_unverified, now=when)
    if is_signed:
        signer = signing_identity(store, sender, Passphrase(passphrase_file), is_openpgp=is_openpgp)
        when = next_time(store.home, sender, when)
    asks = (POSITIVE, DISPLAY) if wants_receipt else ()
    obj = text_object(claimed or sender, recipient, _content(text, content_type), content_type, when=when, asks=asks)
    forms = [obj]
    if is_encrypted:
        forms = [encrypted_for(obj, readers, signer, when)]
    elif signer is not None:
        forms = _signed(obj, signer, when, is_bare=is_bare)
    if forms[-1].media_type == PKCS7:
        forms.append(terse(forms[-1]))
    requirements = read_requirements(required)
    obj, response = asyncio.run(_send(signing_in(via, sender, sign_in), recipient, forms, claimed, requirements))
    is_refused = response.status is Status.FAILURE
    reason = response.reason.value if response.reason else ""
    if as_json:
        facts = {"sha256": obj.fingerprint, "status": response.status.value, "reason": reason}
        told = {"form": response.form, "at": response.at, "delivered": in_words(response.form, response.at)}
        print_json({**facts, "text": response.text, **told})
    else:
        form = f" ({response.form})" if response.form else ""
        click.echo(f"sha256   {obj.fingerprint}\noutcome  {response.status.value}{form}")
        if delivered := in_words(response.form, response.at):
            click.echo(f"form     {printable(delivered)}")
    if is_refused:
        fail(hinted(f"Refused: {': '.join(part for part in (reason, response.text) if part)}"), NEGATIVE)


def _content(text: str, content_type: str) -> bytes:
    """The octets to send; text gets the line ends that signing demands (SEC-14)."""
    octets = read_input("-", MAX_FILE) if text == "-" else os.fsencode(text)
    if content_type == PLAIN:
        try:
            octets.decode("utf-8")
        except UnicodeDecodeError:
            fail("The text is not UTF-8. Say what it is, as in --type 'text/plain; charset=iso-8859-1'.")
    return canonical_text(octets) if content_type.lower().startswith("text/") else octets


def _signed(obj: MimeObject, signer: Identity | PgpIdentity, when: datetime, *, is_bare: bool) -> list[MimeObject]:
    """The object signed: in the form that everybody can read, and in a smaller one for where there is no room (SEC-12)."""
    sign = partial(make_signature, obj, signer, when=when, with_certificate=not is_bare)
    return [sign()] if isinstance(signer, PgpIdentity) else [sign(), sign(form="signed-data")]


async def _send(
    sign_in: SignIn,
    recipient: Address,
    forms: Sequence[MimeObject],
    claimed: Address | None,
    requirements: frozenset[Requirement],
) -> tuple[MimeObject, Response]:
    """Send the first form that there is room for; what was sent, and what the server said."""
    async with connected(sign_in, receive=False) as client:
        obj = next((form for form in forms if client.has_room(form, recipient, requirements)), forms[0])
        return obj, await client.send(obj, recipient, from_=claimed, requirements=requirements, asks=True)


@asynccontextmanager
async def connected(sign_in: SignIn, *, receive: bool) -> AsyncIterator[Client]:
    """A signed-in client; a refused sign-in or a lost connection ends the command with its sentence."""
    try:
        async with sign_in.connect(receive=receive) as client:
            yield client
    except ClientError as error:
        fail(hinted(str(error)), NEGATIVE)


def hinted(text: str) -> str:
    """``text``, and on a line of its own what a person can do about it, if we know."""
    return next((f"{text}\n{hint}" for symptom, hint in HINTS.items() if symptom in text), text)
