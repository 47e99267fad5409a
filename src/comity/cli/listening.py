"""``comity listen``.

Place on the path: at its end. It is a person's client, never part of a server: keys and trust come from ``COMITY_HOME``, and
a verdict is made here, from the octets as they arrived. Who signed with which key is remembered (T33).
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import click

from comity.cli.arguments import address_of
from comity.cli.messages import SignIn, Via, connected, sign_in_options, signing_in
from comity.cli.output import NEGATIVE, as_json, fail, print_json, printable
from comity.client import Received
from comity.cpim.native import readable_part
from comity.cpim.operations import HistoryEntry
from comity.secure import KeyStore, ReplayCache, TrustStore, Verdict, VerdictKind, verify


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
        asyncio.run(_listen(signing_in(via, whose, sign_in), listener, count, timeout))
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
        async with asyncio.timeout(seconds) as limit, connected(sign_in, receive=True) as client:
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
