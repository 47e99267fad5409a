"""``comity publish`` and ``comity watch``; ``comity contacts`` is in ``contacts.py``.

Place on the path: at both ends of a notify. It is a person's client, never part of a server: keys and trust come from
``COMITY_HOME``, and a verdict about a signed document is made here, from the octets as they arrived.
"""

from __future__ import annotations

import asyncio
import base64
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn

import click

from comity.cli.arguments import address_of
from comity.cli.identities import Passphrase, openpgp_option, passphrase_option, signing_identity
from comity.cli.listening import phrase
from comity.cli.messages import SignIn, Via, connected, hinted, sign_in_options, signing_in
from comity.cli.output import NEGATIVE, as_json, fail, print_json, printable
from comity.client import Client, Judge, Seen, Standing
from comity.cpim.address import Address
from comity.cpim.operations import MimeObject, Response, Status
from comity.cpim.presence_state import Availability
from comity.secure import KeyStore
from comity.secure import sign as make_signature

State = Literal["open", "away", "busy", "closed"]

STATES: dict[str, Availability] = {
    "open": Availability.AVAILABLE,
    "away": Availability.AWAY,
    "busy": Availability.DND,
    "closed": Availability.OFFLINE,
}
WORDS = {
    Availability.CHAT: "open",
    Availability.AVAILABLE: "open",
    Availability.AWAY: "away",
    Availability.XA: "away",
    Availability.DND: "busy",
    Availability.OFFLINE: "closed",
    Availability.UNKNOWN: "unknown",
}
"""What is printed for each state; ``chat`` and ``xa`` are told apart in the JSON."""
FRESHEN = 240.0
"""Seconds after which a signed document is signed anew: at five minutes a watcher finds it old (RFC 3923 section 6.9)."""


def _end_by_signals() -> None:
    """Let Ctrl-C and SIGTERM cancel what runs, so that the client says goodbye."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)


@asynccontextmanager
async def _at_most(seconds: float | None) -> AsyncIterator[None]:
    """Run until it ends or the time is over, which is no error."""
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError:
        if not limit.expired():  # the network's own, not ours
            raise


def refused(what: str, response: Response) -> NoReturn:
    """End with what was not done, and why."""
    reason = response.reason.value if response.reason else ""
    fail(hinted(f"{what}: {': '.join(part for part in (reason, response.text) if part)}"), NEGATIVE)


# --- publish ----------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("address")
@click.argument("state", type=click.Choice(list(STATES)))
@click.option("--note", default="", metavar="TEXT", help="A word for people: at lunch, back at two.")
@sign_in_options
@click.option(
    "--lease",
    type=click.IntRange(1, 2**31),
    metavar="SECONDS",
    help="SIP, APEX: leave it behind for so long, and end at once; the server may shorten it.",
)
@click.option("--for", "seconds", type=click.FloatRange(0), metavar="SECONDS", help="End after so many seconds.")
@click.option("--sign", "is_signed", is_flag=True, help="Sign it with the key that COMITY_HOME has for ADDRESS.")
@openpgp_option
@passphrase_option
@as_json
def publish(
    *,
    address: str,
    state: State,
    note: str,
    via: Via,
    lease: int | None,
    seconds: float | None,
    is_signed: bool,
    is_openpgp: bool,
    passphrase_file: Path | None,
    as_json: bool,
    **sign_in: Any,
) -> None:
    """Say how ADDRESS is: open, away, busy or closed.

    It stands for as long as this command runs: until Ctrl-C, or the end of --for. Then it is taken back, and watchers see
    what other devices of ADDRESS say, or that it is closed. With --lease (SIP, APEX) it is left behind for so many seconds and
    the command ends at once. A device that only publishes takes no messages away from others.
    Exit code 0: it was published; 1: the server refused it, or the connection was lost.

    \b
    Examples:
      comity publish alice@example.org away --note 'at lunch' --via sip
      comity publish alice@example.org busy --via xmpp --for 3600
      comity publish alice@example.org open --via sip --lease 600 --sign
    """
    whose = address_of(address)
    if lease is not None and via == "xmpp":
        fail(
            "By XMPP presence ends with the connection: --lease is for --via sip and apex. Use --for to end by itself."
        )
    if lease is not None and seconds is not None:
        fail("--lease leaves it behind and ends at once, --for stays so long: use one of them.")
    sealer = _sealer(whose, Passphrase(passphrase_file), is_openpgp=is_openpgp) if is_signed else None
    who = signing_in(via, whose, sign_in)
    try:
        asyncio.run(_publish(who, state, note=note, lease=lease, seconds=seconds, sealer=sealer, as_json=as_json))
    except asyncio.CancelledError:
        click.echo("comity: taken back", err=True)


def _sealer(whose: Address, passphrase: Passphrase, *, is_openpgp: bool) -> Callable[[MimeObject], MimeObject]:
    """What signs the document of ``whose``."""
    signer = signing_identity(KeyStore(), whose, passphrase, is_openpgp=is_openpgp)
    return lambda obj: make_signature(obj, signer, when=datetime.now(UTC))


async def _publish(
    sign_in: SignIn,
    state: State,
    *,
    note: str,
    lease: int | None,
    seconds: float | None,
    sealer: Callable[[MimeObject], MimeObject] | None,
    as_json: bool,
) -> None:
    _end_by_signals()
    async with connected(sign_in, receive=False) as client:
        say = partial(client.publish, STATES[state], note, lease=lease, sealer=sealer)
        _check(await say())
        if as_json:
            print_json({"who": str(sign_in.address), "state": state, "note": note, "via": sign_in.via, "lease": lease})
        said = f"{state} ({note})" if note else state
        ends = f"for {lease} s" if lease is not None else "until this command ends"
        click.echo(f"comity: {printable(f'{sign_in.address} is {said}')} by {sign_in.via}, {ends}", err=True)
        if lease is None:
            async with _at_most(seconds):
                await _stay(client, say, FRESHEN if sealer is not None else None)


def _check(response: Response) -> None:
    if response.status is Status.FAILURE:
        refused("Not published", response)


async def _stay(client: Client, say: Callable[[], Awaitable[Response]], every: float | None) -> None:
    """Stay signed in until the connection is lost for good; what is signed is said again before its signature is old."""

    async def ended() -> None:
        async for _ in client.messages():  # none come here
            pass

    ending = asyncio.ensure_future(ended())
    try:
        while not (await asyncio.wait((ending,), timeout=every))[0]:
            _check(await say())
        await ending
    finally:
        ending.cancel()


# --- watch ------------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("target", metavar="ADDRESS")
@click.option("--as", "as_", metavar="ADDRESS", required=True, help="Who signs in and watches.")
@sign_in_options
@click.option("--count", type=click.IntRange(1), help="End after so many states were shown.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), help="End after so many seconds.")
@click.option("--once", "is_once", is_flag=True, help="Only the present state, without asking to see more.")
@as_json
def watch(
    *,
    target: str,
    as_: str,
    via: Via,
    count: int | None,
    timeout: float | None,
    is_once: bool,
    as_json: bool,
    **sign_in: Any,
) -> None:
    """Watch ADDRESS: a line for each change, with time, state, note and verdict.

    Who may not see ADDRESS yet asks by watching: "pending" is shown until ADDRESS answers. By XMPP the answer stays, and ADDRESS
    in the contact list; by SIP it is asked again next time, and the server remembers the answer. A document that is signed
    gets a verdict, by the trust of COMITY_HOME. Without --count, --timeout and --once it goes on until Ctrl-C.
    Exit code 0: as many states were shown as --count says (without it: at least one); 1: they were not, or it was refused.

    \b
    Examples:
      comity watch pres:bob@example.org --as pres:alice@example.org --via sip
      comity watch bob@example.org --as alice@example.org --via xmpp --count 1 --json
      comity watch bob@example.org --as alice@example.org --via xmpp --once
    """
    whom, whose = address_of(target).with_scheme("pres"), address_of(as_).with_scheme("im")
    shown = Shown(as_json)
    who = signing_in(via, whose, sign_in)
    judge = Judge(KeyStore().trust_store())
    try:
        asyncio.run(_watch(who, whom, judge, shown, count=1 if is_once else count, seconds=timeout, is_once=is_once))
    except asyncio.CancelledError:
        click.echo("comity: stopped watching", err=True)
    if shown.refusal:
        fail(f"{whom} does not let {whose} see: {shown.refusal.removesuffix('.')}.", NEGATIVE)
    if shown.states < (count or 1):
        why = f" It ended: {shown.end.removesuffix('.')}." if shown.end else ""
        fail(hinted(f"{shown.states} of {count or 1} states came.{why}"), NEGATIVE)


class Shown:
    """Prints what is seen, and counts the states."""

    def __init__(self, as_json: bool) -> None:
        self.states = 0
        self.refusal = ""
        """Why it was refused; "" if it is not, as far as is known."""
        self.end = ""
        """Why it ended, if that was the last thing seen."""
        self._as_json = as_json
        self._last: tuple[object, ...] = ()

    def show(self, seen: Seen) -> None:
        """Print one thing, unless it says what the last one said: the same, signed anew, is no change."""
        verdict = seen.verdict.verdict if seen.verdict is not None else None
        said = seen.standing, seen.availability, seen.notes, seen.reason, verdict
        if said == self._last:
            return
        self._last = said
        self.states += seen.standing is Standing.ACTIVE
        self.refusal = seen.reason or "refused" if seen.standing is Standing.REFUSED else ""
        self.end = seen.reason if seen.standing is Standing.ENDED else ""
        if self._as_json:
            print_json(_fields(seen))
        else:
            click.echo(f"{seen.when.astimezone():%H:%M:%S}  {printable(seen.who.uri)}  {_said(seen)}")


def _said(seen: Seen) -> str:
    """What was seen, in words."""
    match seen.standing:
        case Standing.PENDING:
            return "pending: " + printable(seen.reason or "asked, and not answered yet")
        case Standing.REFUSED:
            return f"refused: {printable(seen.reason)}"
        case Standing.ENDED:
            return f"ended: {printable(seen.reason)}"
    parts = [WORDS[seen.availability]]
    if seen.note:
        parts.append(f'"{printable(seen.note)}"')
    if seen.reason:
        parts.append(f"({printable(seen.reason)})")
    if seen.verdict is not None:
        parts.append(f"[{phrase(seen.verdict)}; sha256 {seen.sha256[:16]}]")
    return "  ".join(parts)


def _fields(seen: Seen) -> dict[str, object]:
    verdict, obj = seen.verdict, seen.object
    return {
        "who": seen.who.uri,
        "time": seen.when.isoformat(),
        "standing": seen.standing.value,
        "state": WORDS[seen.availability],
        "availability": seen.availability.value,
        "note": seen.note,
        "notes": [{"text": note.text, "language": note.language} for note in seen.notes],
        "reason": seen.reason,
        "type": obj.media_type if obj is not None else "",
        "sha256": seen.sha256,
        "octets": base64.b64encode(obj.octets).decode("ascii") if obj is not None else "",
        "verdict": verdict.verdict.value if verdict is not None else "",
        "signer": verdict.signer if verdict is not None else "",
        "asserted_by": verdict.asserted_by if verdict is not None else "",
    }


async def _watch(
    sign_in: SignIn,
    whom: Address,
    judge: Judge,
    shown: Shown,
    *,
    count: int | None,
    seconds: float | None,
    is_once: bool,
) -> None:
    _end_by_signals()
    async with connected(sign_in, receive=False) as client, _at_most(seconds):
        click.echo(f"comity: watching {printable(whom.uri)} by {sign_in.via}", err=True)
        async with aclosing(client.watch(whom, judge=judge, is_once=is_once)) as changes:
            async for seen in changes:
                shown.show(seen)
                if shown.states == count:
                    return
