"""``comity account watchers``, ``allow``, ``refuse``, ``polite-block``, ``ask-again``, ``presence`` and ``contacts``.

Place on the path: beside it. Stock SIP phones have no way to answer who asks to watch them: these commands do it, on a running
server at once, otherwise in its store.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from comity.admin.requests import Decide, ListContacts, SetPresence, ShowWatchers
from comity.cli.asking import carry_out
from comity.cli.output import as_json, config_option, print_json, print_table, printable

_DEFAULTS = {
    "ask": "is put to its owner",
    "deny": "is refused",
    "contacts": "is granted to its contacts, and put to its owner otherwise",
    "domain": "is granted to its own domain, and put to its owner otherwise",
    "everyone": "is granted",
}


@click.command("watchers")
@click.argument("address")
@config_option
@as_json
def watchers(address: str, config_path: Path, as_json: bool) -> None:
    """Show who watches ADDRESS, who asks to, and about whom it decided.

    First come those who watch now, if the server runs: pending ones wait for an answer. Then what was decided about each
    person, and since when a request waits. Answer with: comity account allow, refuse or polite-block.

    \b
    Examples:
      comity account watchers alice@example.org
      comity account watchers alice@example.org --json
    """
    report = carry_out(config_path, ShowWatchers(address))
    if as_json:
        print_json(report)
        return
    click.echo(f"A request to see {report['address']} {_DEFAULTS[report['default']]}, unless decided below.")
    rows = [(one["watcher"], one["via"], one["state"], one["since"]) for one in report["watching"]]
    if rows:
        print_table(("watching now", "by", "state", "since"), rows, "")
    decided = [(one["watcher"], _decision(one), one["asked"] or "", one["text"]) for one in report["decided"]]
    print_table(("person", "decision", "asks since", "and says"), decided, "Nobody asked, and nothing was decided.")


def _decision(one: dict[str, object]) -> str:
    if one["decision"] == "none":
        return "allowed before asking" if one["approved"] else "open"
    return {"allowed": "allowed", "refused": "refused", "polite": "politely blocked"}[str(one["decision"])]


def _decide(decision: str, done: str) -> Callable[[str, str, Path, bool], None]:
    """What the four commands do."""

    def act(address: str, watcher: str, config_path: Path, as_json: bool) -> None:
        result = carry_out(config_path, Decide(address, watcher, decision))
        if as_json:
            print_json(result)
        else:
            click.echo(printable(done.format(watcher=result["watcher"], address=address)))

    return act


@click.command("allow")
@click.argument("address")
@click.argument("watcher")
@config_option
@as_json
def allow(address: str, watcher: str, config_path: Path, as_json: bool) -> None:
    """Let WATCHER see the presence of ADDRESS, from now on or as soon as WATCHER asks.

    \b
    Example:
      comity account allow alice@example.org bob@example.org
    """
    _decide("allowed", "{watcher} may see {address}.")(address, watcher, config_path, as_json)


@click.command("refuse")
@click.argument("address")
@click.argument("watcher")
@config_option
@as_json
def refuse(address: str, watcher: str, config_path: Path, as_json: bool) -> None:
    """Refuse WATCHER, or take back what was allowed; WATCHER is told.

    Where requests are put to ADDRESS, WATCHER may ask again. Use polite-block for somebody who shall not notice.

    \b
    Example:
      comity account refuse alice@example.org mallory@example.org
    """
    _decide("refused", "{watcher} may not see {address}, and is told so.")(address, watcher, config_path, as_json)


@click.command("polite-block")
@click.argument("address")
@click.argument("watcher")
@config_option
@as_json
def polite_block(address: str, watcher: str, config_path: Path, as_json: bool) -> None:
    """Show ADDRESS to WATCHER as somebody who is offline, now and for ever.

    To WATCHER it looks as if the request was granted. Asking again changes nothing.

    \b
    Example:
      comity account polite-block alice@example.org mallory@example.org
    """
    _decide("polite", "{watcher} sees {address} offline from now on.")(address, watcher, config_path, as_json)


@click.command("ask-again")
@click.argument("address")
@click.argument("watcher")
@config_option
@as_json
def ask_again(address: str, watcher: str, config_path: Path, as_json: bool) -> None:
    """Forget what ADDRESS decided about WATCHER: the next request is put to it like the first.

    \b
    Example:
      comity account ask-again alice@example.org bob@example.org
    """
    _decide("none", "Nothing is decided about {watcher} any more.")(address, watcher, config_path, as_json)


@click.command("presence")
@click.argument("address")
@click.option(
    "--default",
    "default",
    type=click.Choice([*_DEFAULTS, "server"]),
    default=None,
    help="What anybody gets about whom ADDRESS decided nothing; server: as presence_default in the configuration says.",
)
@config_option
@as_json
def presence(address: str, default: str | None, config_path: Path, as_json: bool) -> None:
    """Set or show who may see ADDRESS without being asked about.

    ask puts each request to its owner; deny refuses it; contacts grants it to those in its contact list, domain to those of
    its domain, everyone to all. What was decided about single persons counts first, and so do presence rules.

    \b
    Examples:
      comity account presence reception@example.org --default domain
      comity account presence reception@example.org
    """
    result = carry_out(config_path, SetPresence(address, default or ""))
    if as_json:
        print_json(result)
    else:
        click.echo(f"{result['default']}: a request to see {result['address']} {_DEFAULTS[result['default']]}.")


@click.command("contacts")
@click.argument("address")
@config_option
@as_json
def contacts(address: str, config_path: Path, as_json: bool) -> None:
    """Show the contact list of ADDRESS, the one that all its programs share.

    sees says whom ADDRESS may see (waits: it asked), seen by who of them may see ADDRESS.

    \b
    Example:
      comity account contacts alice@example.org
    """
    found = carry_out(config_path, ListContacts(address))
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one["contact"],
            one["name"],
            ", ".join(one["groups"]),
            "yes" if one["subscription"] in ("to", "both") else "waits" if one["asks"] else "no",
            "yes" if one["subscription"] in ("from", "both") else "no",
        )
        for one in found
    ]
    print_table(("contact", "name", "groups", "sees", "seen by"), rows, "The contact list is empty.")


COMMANDS = (watchers, allow, refuse, polite_block, ask_again, presence, contacts)
