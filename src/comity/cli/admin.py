"""``comity account``, ``comity trace`` and ``comity queue``.

Place on the path: beside it. Each command is one request of ``admin/commands.py``; ``admin/access.py`` takes it to
the running server, or to the store when none runs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from comity.admin.requests import (
    AddAccount,
    DropMessage,
    ListAccounts,
    ListQueues,
    RemoveAccount,
    RetryQueue,
    SetPassword,
    SetPolicy,
    ShowQueue,
    Trace,
)
from comity.cli.asking import carry_out
from comity.cli.output import Group, as_json, config_option, fail, print_json, print_table
from comity.cli.watchers import COMMANDS
from comity.cpim.operations import Requirement

MAX_PASSWORD_OCTETS = 1024


def _password(from_stdin: bool) -> str:
    """A new password: the first line of standard input, or asked for twice; never an argument (B-02)."""
    if not from_stdin:
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))
    line = sys.stdin.buffer.readline(MAX_PASSWORD_OCTETS + 2)
    try:
        return line.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        fail("The password on standard input is not UTF-8.")


password_stdin = click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")


@click.group(cls=Group)
def account() -> None:
    """Accounts: one address and one password for every protocol."""


for _command in COMMANDS:
    account.add_command(_command)


@account.command("add")
@click.argument("address")
@password_stdin
@config_option
@as_json
def account_add(address: str, password_stdin: bool, config_path: Path, as_json: bool) -> None:
    """Make the account ADDRESS.

    \b
    Examples:
      comity account add alice@example.org
      printf %s "$PASSWORD" | comity account add alice@example.org --password-stdin
    """
    result = carry_out(config_path, AddAccount(address, _password(password_stdin)))
    print_json(result) if as_json else click.echo(f"{result['address']} was added.")


@account.command("list")
@click.argument("of", metavar="[ADDRESS|DOMAIN]", default="")
@config_option
@as_json
def account_list(of: str, config_path: Path, as_json: bool) -> None:
    """List all accounts, or those of one domain.

    \b
    Example:
      comity account list example.org --json
    """
    accounts = carry_out(config_path, ListAccounts(of))
    if as_json:
        print_json(accounts)
        return
    rows = [(a["address"], a["created"], "of its own" if a["own_sip_password"] else "the same") for a in accounts]
    print_table(("address", "created", "SIP password"), rows, "There is no account.")


@account.command("password")
@click.argument("address")
@click.option("--sip", is_flag=True, help="Change the password of SIP only; the others keep theirs.")
@password_stdin
@config_option
@as_json
def account_password(address: str, sip: bool, password_stdin: bool, config_path: Path, as_json: bool) -> None:
    """Change the password of ADDRESS, by default for every protocol.

    SIP phones keep passwords less well than other programs; --sip gives them one of their own.

    \b
    Example:
      comity account password alice@example.org --sip
    """
    result = carry_out(config_path, SetPassword(address, _password(password_stdin), sip))
    what = "SIP password" if sip else "password"
    print_json(result) if as_json else click.echo(f"The {what} of {result['address']} was changed.")


_REQUIREMENT = click.Choice([requirement.value for requirement in Requirement])


@account.command("policy")
@click.argument("address")
@click.option("--require", type=_REQUIREMENT, multiple=True, help="What messages to ADDRESS must have.")
@click.option("--require-from", type=_REQUIREMENT, multiple=True, help="What messages from ADDRESS must have.")
@click.option(
    "--verify",
    type=click.Choice(["off", "mark", "refuse"]),
    default="off",
    help="What becomes of broken signatures on messages to ADDRESS, by [security] trust.",
)
@click.option(
    "--operations",
    type=click.Choice(["any", "signed"]),
    default="any",
    help="Whether who asks to watch ADDRESS has to sign that, believed by [security] trust.",
)
@click.option("--clear", is_flag=True, help="Ask for nothing again.")
@config_option
@as_json
def account_policy(
    *,
    address: str,
    require: tuple[str, ...],
    require_from: tuple[str, ...],
    verify: str,
    operations: str,
    clear: bool,
    config_path: Path,
    as_json: bool,
) -> None:
    """Set or show what messages to and from ADDRESS must have on every hop, and who may ask to watch it.

    Options given replace what was set before; none of them shows it. The configuration may ask for more, never for less.

    \b
    Examples:
      comity account policy alice@example.org --require signed --require tls --verify refuse
      comity account policy alice@example.org --operations signed
      comity account policy alice@example.org
      comity account policy alice@example.org --clear
    """
    is_said = bool(require or require_from or verify != "off" or operations != "any")
    if clear and is_said:
        raise click.UsageError("--clear stands alone.")
    request = SetPolicy(address, clear or is_said, list(require), list(require_from), verify, operations)
    result = carry_out(config_path, request)
    if as_json:
        print_json(result)
        return
    columns = ("address", "require", "require_from", "verify", "operations")
    row = [", ".join(v) or "-" if isinstance(v := result[c], list) else v for c in columns]
    print_table(columns, [row], "")


@account.command("remove")
@click.argument("address")
@config_option
@as_json
def account_remove(address: str, config_path: Path, as_json: bool) -> None:
    """Remove the account ADDRESS, its keys, its devices and what waits for it.

    \b
    Example:
      comity account remove alice@example.org
    """
    result = carry_out(config_path, RemoveAccount(address))
    if as_json:
        print_json(result)
        return
    waiting = f" {result['dropped']} waiting messages were dropped." if result["dropped"] else ""
    click.echo(f"{result['address']} was removed.{waiting}")


@click.command()
@click.argument("name", metavar="ID")
@config_option
@as_json
def trace(name: str, config_path: Path, as_json: bool) -> None:
    """Show the path of one message: node, protocol in and out, which links were under TLS, time, SHA-256, outcome.

    What stands above this server's own line is what the nodes before it said of themselves. The outcome names the form that was
    delivered: the object whole, or its text only and where the object ended.

    ID is the spine ID, the first eight or more digits of the object's SHA-256, a Call-ID or an XMPP id.

    \b
    Example:
      comity trace 5f70bf18 --json
    """
    steps = carry_out(config_path, Trace(name))
    for step in steps:
        step["in"] = step.pop("in_")
    columns = ("node", "in", "out", "time", "sha256", "outcome")
    more = ("in_tls", "out_tls", "form", "note", "asserted_by")
    if as_json:
        print_json([{column: step[column] for column in (*columns, *more)} for step in steps])
        return
    for step in steps:
        step["tls"] = " ".join(_WITH_TLS[step[end]].format(end.partition("_")[0]) for end in ("in_tls", "out_tls"))
    shown = ("node", "in", "out", "tls", "time", "sha256", "outcome")
    print_table(shown, [[step[column] for column in shown] for step in steps], "Nothing is known of it.")


_WITH_TLS = {True: "{}:yes", False: "{}:no", None: "{}:?"}
"""Of one link."""


@click.group(cls=Group)
def queue() -> None:
    """What waits to be delivered."""


@queue.command("list")
@config_option
@as_json
def queue_list(config_path: Path, as_json: bool) -> None:
    """List the lanes that hold waiting messages: inboxes of people, and next hops.

    \b
    Example:
      comity queue list
    """
    lanes = carry_out(config_path, ListQueues())
    if as_json:
        print_json(lanes)
        return
    columns = ("lane", "pending", "octets", "oldest")
    print_table(columns, [[lane[c] for c in columns] for lane in lanes], "Nothing waits.")


@queue.command("show")
@click.argument("lane")
@click.option("--limit", default=100, show_default=True, help="Messages to show.")
@config_option
@as_json
def queue_show(lane: str, limit: int, config_path: Path, as_json: bool) -> None:
    """Show what waits in LANE, or for an address; never the messages themselves.

    \b
    Example:
      comity queue show bob@example.org
    """
    items = carry_out(config_path, ShowQueue(lane, limit))
    if as_json:
        print_json(items)
        return
    columns = ("id", "accepted", "expires", "octets", "sha256")
    print_table(columns, [[item[c] for c in columns] for item in items], "Nothing waits.")


@queue.command("retry")
@click.argument("lane", required=False, default="")
@config_option
@as_json
def queue_retry(lane: str, config_path: Path, as_json: bool) -> None:
    """Try LANE now, or every lane.

    \b
    Example:
      comity queue retry hop/sip:pbx.example.org
    """
    result = carry_out(config_path, RetryQueue(lane))
    if as_json:
        print_json(result)
    else:
        click.echo("\n".join(f"{name} is tried." for name in result["lanes"]) or "Nothing waits.")


@queue.command("drop")
@click.argument("message_id", metavar="ID")
@config_option
@as_json
def queue_drop(message_id: str, config_path: Path, as_json: bool) -> None:
    """End the waiting message ID undelivered; a running server tells its sender.

    \b
    Example:
      comity queue drop 0198c6a1-9b5e-7c33-8a51-3f2d6f0b7e11
    """
    result = carry_out(config_path, DropMessage(message_id))
    print_json(result) if as_json else click.echo(f"{result['id']} was dropped from {result['lane']}.")
