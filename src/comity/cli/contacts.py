"""``comity contacts``: the contact list, and who may see whose presence.

Place on the path: beside it, at a person's own program. What the protocol cannot do says so, and names one that can.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Literal

import click

from comity.cli.arguments import address_of
from comity.cli.messages import SignIn, Via, connected, sign_in_options, signing_in
from comity.cli.output import WRONG, as_json, fail, print_json, print_table, printable
from comity.cli.presence import refused
from comity.client import Client, Contact, NotPossible
from comity.cpim.address import Address
from comity.cpim.operations import Response, Status

Action = Literal["list", "add", "remove", "allow", "refuse", "block", "unblock", "blocked", "requests"]


@click.command()
@click.argument("address")
@click.argument(
    "action",
    type=click.Choice(["list", "add", "remove", "allow", "refuse", "block", "unblock", "blocked", "requests"]),
)
@click.argument("contact", required=False)
@sign_in_options
@click.option("--name", default="", help="add: what you call them.")
@click.option("--group", "groups", multiple=True, help="add: a group they are in; may be given more than once.")
@click.option("--text", default="", help="add: a word with the request to see them.")
@as_json
def contacts(
    *,
    address: str,
    action: Action,
    contact: str | None,
    via: Via,
    name: str,
    groups: tuple[str, ...],
    text: str,
    as_json: bool,
    **sign_in: Any,
) -> None:
    """See and change the contact list of ADDRESS, and who may see its presence.

    \b
      list               who is in it, and who sees whom
      add CONTACT        put into the list, and ask to see them
      remove CONTACT     take out, and end what was between you in both directions
      requests           who asks to see ADDRESS and waits for an answer
      allow, refuse CONTACT      answer; allow works before they ask, refuse takes an earlier yes back
      block, unblock CONTACT     let nothing at all come from or go to them
      blocked            who is blocked

    It is the same list whatever protocol one signs in by. SIP itself knows only "requests", APEX none of
    them: the other actions need XMPP, or an XCAP client. Exit code 0: done; 1: the server refused it; 2: not possible by
    this protocol.

    \b
    Examples:
      comity contacts alice@example.org list --via xmpp
      comity contacts alice@example.org add bob@example.org --name Bob --group Friends --via xmpp
      comity contacts alice@example.org requests --via sip --json
      comity contacts alice@example.org allow bob@example.org --via xmpp
    """
    whose = address_of(address)
    if (contact is None) != (action in _LISTS):
        fail(
            f"{action} takes no CONTACT."
            if contact is not None
            else f"Say whom: comity contacts {address} {action} CONTACT."
        )
    whom = address_of(contact) if contact is not None else None
    who = signing_in(via, whose, sign_in)
    try:
        asyncio.run(_contacts(who, action, whom, name=name, groups=groups, text=text, as_json=as_json))
    except NotPossible as error:
        fail(str(error), WRONG)


async def _contacts(
    sign_in: SignIn,
    action: Action,
    whom: Address | None,
    *,
    name: str,
    groups: Sequence[str],
    text: str,
    as_json: bool,
) -> None:
    not_possible: NotPossible | None = None
    async with connected(sign_in, receive=False) as client:
        try:
            if whom is None:
                await _LISTS[action](client, as_json)
            else:
                await _change(client, action, whom, name=name, groups=groups, text=text)
                _done(action, whom, as_json)
        except NotPossible as error:
            not_possible = error
    if not_possible is not None:
        raise not_possible


async def _change(
    client: Client, action: Action, whom: Address, *, name: str, groups: Sequence[str], text: str
) -> None:
    """Do each step of an action; the first that is refused ends it."""
    steps: dict[str, list[Callable[[], Awaitable[Response]]]] = {
        "add": [partial(client.put_contact, whom, name, groups), partial(client.ask, whom, text)],
        "remove": [partial(client.remove_contact, whom)],
        "allow": [partial(client.allow, whom)],
        "refuse": [partial(client.refuse, whom)],
        "block": [partial(client.block, whom)],
        "unblock": [partial(client.unblock, whom)],
    }
    for step in steps[action]:
        response = await step()
        if response.status is Status.FAILURE:
            refused(f"{action} {whom}", response)


def _done(action: Action, whom: Address, as_json: bool) -> None:
    if as_json:
        print_json({"action": action, "contact": str(whom), "status": "done"})
    else:
        click.echo(f"{action}: {printable(str(whom))}")


async def _list(client: Client, as_json: bool) -> None:
    found = await client.contacts()
    if as_json:
        print_json([_contact_fields(one) for one in found])
        return
    rows = [
        [str(one.address), one.name, ", ".join(one.groups), _sees(one), "yes" if one.is_seen else "no"] for one in found
    ]
    print_table(["contact", "name", "groups", "you see them", "they see you"], rows, "The contact list is empty.")


def _sees(contact: Contact) -> str:
    if contact.sees:
        return "yes"
    return "asked" if contact.asks else "no"


async def _requests(client: Client, as_json: bool) -> None:
    found = await client.requests()
    if as_json:
        print_json([{"contact": str(one.address), "name": one.name, "text": one.text} for one in found])
        return
    print_table(["contact", "text"], [[str(one.address), one.text] for one in found], "Nobody waits for an answer.")


async def _blocked(client: Client, as_json: bool) -> None:
    found = [str(address) for address in await client.blocked()]
    if as_json:
        print_json(found)
        return
    print_table(["blocked"], [[address] for address in found], "Nobody is blocked.")


_LISTS: dict[str, Callable[[Client, bool], Awaitable[None]]] = {
    "list": _list,
    "requests": _requests,
    "blocked": _blocked,
}


def _contact_fields(contact: Contact) -> dict[str, object]:
    return {
        "contact": str(contact.address),
        "name": contact.name,
        "groups": list(contact.groups),
        "sees": contact.sees,
        "is_seen": contact.is_seen,
        "asks": contact.asks,
    }
