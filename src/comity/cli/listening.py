"""``comity listen``.

Place on the path: at its end. It is a person's client, never part of a server: keys and trust come from ``COMITY_HOME``, and
a verdict is made here, from the octets as they arrived. Who signed with which key is remembered (T33).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from comity.cli.arguments import address_of
from comity.cli.identities import Passphrase, passphrase_option, reading_keys, remember
from comity.cli.messages import SignIn, Via, connected, sign_in_options, signing_in
from comity.cli.output import NEGATIVE, as_json, fail, print_json, printable
from comity.client import Received
from comity.cpim.address import Address
from comity.cpim.entity import cpim_view
from comity.cpim.history import HistoryEntry, in_words
from comity.cpim.imdn import POSITIVE, Imdn, notification, wishes_of
from comity.cpim.message import new_message_id
from comity.cpim.native import readable_part
from comity.cpim.operations import Fate, MimeObject, Report
from comity.errors import MalformedMessage
from comity.secure import (
    Action,
    Identity,
    KeyStore,
    StoredReplayCache,
    TrustStore,
    Verdict,
    VerdictKind,
    load_policy,
    verify,
)
from comity.secure.judge import is_same_user
from comity.secure.openpgp import PgpIdentity


@click.command()
@click.argument("address")
@sign_in_options
@click.option("--count", type=click.IntRange(1), help="End after so many messages.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), help="End after so many seconds.")
@click.option("--receipts", "confirms", is_flag=True, help="Tell who asks (send --receipt) that their message came.")
@passphrase_option
@as_json
def listen(
    *,
    address: str,
    via: Via,
    count: int | None,
    timeout: float | None,
    confirms: bool,
    passphrase_file: Path | None,
    as_json: bool,
    **sign_in: Any,
) -> None:
    """Sign in as ADDRESS and print each message with its verdict, a line for each.

    The verdict is made here, by the keys and the trust of COMITY_HOME: what is encrypted for ADDRESS is opened, and who
    signed with which key is remembered, so that a changed key shows. Without --count and --timeout it goes on until Ctrl-C.
    policy.toml there says what is shown, marked with "!" or refused by verdict (docs: howto/require-protection).
    Exit code 0: as many messages came as --count says; 1: they did not.

    \b
    Examples:
      comity listen im:bob@example.org --via xmpp
      comity listen im:alice@example.org --via sip --count 1 --timeout 30 --json
    """
    whose = address_of(address)
    store = KeyStore()
    keys = reading_keys(store, Passphrase(passphrase_file), [whose], is_strict=False)
    who = signing_in(via, whose, sign_in)
    with contextlib.closing(Listener(store, keys, via, whose, as_json)) as listener:
        try:
            asyncio.run(_listen(who, listener, count, timeout, confirms=confirms))
        except asyncio.CancelledError:
            click.echo("comity: stopped listening", err=True)
    if count is not None and listener.seen < count:
        fail(f"{listener.seen} of {count} messages came.", NEGATIVE)


class Listener:
    """Judges and prints what arrives for one person.

    Args:
        store: their keys, trust and memory; what another process changes there counts from the next message on.
        keys: what opens messages that are encrypted for them.
        via: the protocol by which messages come.
        address: whose messages they are.
        as_json: one JSON object a line, for scripts.
    """

    def __init__(
        self, store: KeyStore, keys: Sequence[Identity | PgpIdentity], via: Via, address: Address, as_json: bool
    ) -> None:
        self.seen = 0
        self._store = store
        self._version = store.version()
        self._trust = store.trust_store()
        self._keys = keys
        self._via = via
        self._policy = load_policy(store.path)
        # The same message may come to another person or device of this home, and is no replay there.
        self._replay = StoredReplayCache(f"{address.with_scheme('im')} {via}", store.path, is_deferred=True)
        self._as_json = as_json

    def close(self) -> None:
        """Give the memory of accepted messages back."""
        self._replay.close()

    def show(self, received: Received, now: datetime) -> None:
        """Print one message, or on stderr that one of theirs was not delivered; ``now`` is aware UTC."""
        if received.report is not None:
            click.echo(f"comity: {printable(_told(received.report))}", err=True)
            return
        if (notice := received.notice) is not None:  # the program of whoever it is from says so, signed or not
            click.echo(f"comity: {printable(f'{received.from_} says: {notice.status}: {notice.message_id}')}", err=True)
            return
        verdict = verify(
            received.object,
            self._current_trust(),
            now=now,
            expected_from=received.from_,
            expected_to=received.to,
            replay=self._replay,
            asserted_by=received.asserted_by,
            arrived=received.arrived,
            keys=self._keys,
        )
        contact = self._remember(received, verdict, now)
        self.seen += 1
        decision = self._policy.decide(verdict, received.from_, received.requirements)
        is_refused = decision.action is Action.REFUSE
        if is_refused and decision.reason is not None:
            received.refuse(decision.reason, decision.told)
        text = None if is_refused else _text(received, verdict)
        if self._as_json:
            print_json({**_fields(received, verdict, text, contact), "action": decision.action.value})
        else:
            shown = printable(text) if text is not None else f"({printable(received.object.media_type)})"
            shown = f"(refused: {printable(decision.text)})" if is_refused else shown
            mark = "! " if decision.action is Action.MARK else ""
            click.echo(
                f"{mark}{printable(str(received.from_))}: {shown}  "
                f"[{phrase(verdict, contact)}; sha256 {verdict.sha256[:16]}]"
            )
            if _is_worth_showing(received.history):
                click.echo(f"    by {printable(in_words(received.history))}")
        if is_refused:  # the sender may mend it and send it again
            self._replay.drop()
        else:
            self._replay.keep()

    def _current_trust(self) -> TrustStore:
        """The trust as it lies on disk; read again only after somebody changed it."""
        version = self._store.version()
        if version != self._version:
            self._version, self._trust = version, self._store.trust_store()
        return self._trust

    def _remember(self, received: Received, verdict: Verdict, now: datetime) -> str:
        """Note who signed, if it is whom the envelope names; how that stands to what was seen before, in words."""
        if not is_same_user(str(received.from_), verdict.from_):
            return ""
        return remember(self._store, verdict, now, self._via)


def _told(report: Report) -> str:
    """What our server says of a message of ours, in words."""
    if report.fate is Fate.FAILED:
        return f"not delivered to {report.recipient}: {report.reason.value}: {report.text}"
    how = "still on its way" if report.fate is Fate.DELAYED else report.fate.value
    return f"{how} to {report.recipient}" if report.fate is not Fate.DISPLAYED else f"displayed by {report.recipient}"


def receipt_for(received: Received, now: datetime) -> MimeObject | None:
    """The notification that a message was delivered, if its sender asked for one and it came from no server (RFC 5438 section 7.2)."""
    try:
        view = cpim_view(received.object)
    except MalformedMessage:
        return None
    if view is None or received.report is not None or POSITIVE not in wishes_of(view):
        return None
    who = received.to.uri
    imdn = Imdn(view.message_id, view.date_time_text, "delivered", "", who, who, view.subject())
    message_id = new_message_id(os.urandom(15))
    return notification(imdn, from_=received.to, to=received.from_, when=now, message_id=message_id)


async def _listen(
    sign_in: SignIn, listener: Listener, count: int | None, seconds: float | None, *, confirms: bool
) -> None:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):  # sign out before it ends, so that the server need not find out
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        async with asyncio.timeout(seconds) as limit, connected(sign_in, receive=True) as client:
            click.echo(f"comity: listening as {printable(str(sign_in.address))} by {sign_in.via}", err=True)
            messages = aiter(client.messages())
            async for received in messages:
                now = datetime.now(UTC)
                listener.show(received, now)
                if confirms and (receipt := receipt_for(received, now)) is not None:
                    await client.send(receipt, received.from_)
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
    """What to show as the text: under "valid" nothing but what the signature covers (T8); else too if it came encrypted."""
    if (verdict.is_valid or verdict.is_encrypted) and verdict.content is not None:
        return readable_part(verdict.content)
    return received.text


def phrase(verdict: Verdict, contact: str = "") -> str:
    """The verdict in words for a person, the names in it escaped; ``contact``: how the key stands to those before."""
    if verdict.is_valid:
        encrypted = ", came encrypted" if verdict.is_encrypted else ""
        return printable(f"valid, signed by {verdict.signer}{encrypted}{f', {contact}' if contact else ''}")
    if verdict.verdict is VerdictKind.UNSIGNED and verdict.asserted_by:
        return printable(f"unsigned, asserted by {verdict.asserted_by}")
    return printable(f"{verdict.verdict.value}: {verdict.reason}{f' ({contact})' if contact else ''}")


def _fields(received: Received, verdict: Verdict, text: str | None, contact: str) -> dict[str, object]:
    return {
        "from": str(received.from_),
        "to": str(received.to),
        "type": received.object.media_type,
        "sha256": verdict.sha256,
        "verdict": verdict.verdict.value,
        "text": text,
        "signer": verdict.signer,
        "reason": verdict.reason,
        "contact": contact,
        "fingerprint": verdict.fingerprint,
        "encrypted": verdict.is_encrypted,
        "layers": [layer.text for layer in verdict.layers],
        "asserted_by": received.asserted_by,
        "delayed": received.is_delayed,
        "requirements": sorted(requirement.value for requirement in received.requirements),
        "history": [_hop(entry) for entry in received.history],
    }


def _is_worth_showing(history: tuple[HistoryEntry, ...]) -> bool:
    """More than our own server had it, or it passed a link without TLS."""
    return len(history) > 1 or any(False in (entry.in_tls, entry.out_tls) for entry in history)


def _hop(entry: HistoryEntry) -> dict[str, object]:
    said = {"node": entry.node, "in": entry.in_protocol, "out": entry.out_protocol, "time": entry.when.isoformat()}
    return {**said, "note": entry.note, "in_tls": entry.in_tls, "out_tls": entry.out_tls}
