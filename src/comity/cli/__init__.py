"""The command line: a thin front, one module for each group of commands.

Place on the path: beside it. Exit codes: 0 good, 1 a negative result (a bad signature, an unknown account),
2 wrong use or a wrong configuration. Every error is a sentence on stderr that says what to do.
"""

from __future__ import annotations

import importlib

import click

import comity
from comity.cli.output import Group

__all__ = ["main"]


MODULES = {
    **dict.fromkeys(("init", "serve", "config"), "server"),
    **dict.fromkeys(("account", "queue", "trace"), "admin"),
    **dict.fromkeys(("inspect", "sign", "verify"), "crypto"),
    **dict.fromkeys(("encrypt", "decrypt"), "encryption"),
    "keys": "own_keys",
    "send": "messages",
    "listen": "listening",
    **dict.fromkeys(("publish", "watch"), "presence"),
    "contacts": "contacts",
    "recover": "recover",
    "dns": "names",
    "demo": "demo",
}
"""Command → module of this package that has it; only the one that is asked for is imported."""


class Commands(Group):
    """The commands of ``MODULES``: `comity send` does not wait for what only `comity serve` needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names, as `comity --help` lists them."""
        return sorted(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, its module imported now; None if there is none of that name."""
        if cmd_name not in MODULES:
            return None
        command = getattr(importlib.import_module(f"comity.cli.{MODULES[cmd_name]}"), cmd_name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(comity.__version__, prog_name="comity")
def main() -> None:
    """Signed instant messages across SIP, XMPP and APEX, unchanged.

    \b
    A server of your own, in three commands:
      comity init house --domain example.org
      comity account add alice@example.org -c house/comity.toml
      comity serve -c house/comity.toml

    \b
    A letter that only its reader opens, and that nobody changes on the way:
      comity keys new alice@example.org
      comity keys trust bob.pem                  (his certificate; compare fingerprints)
      comity send --from alice@example.org --to bob@example.org --via sip --sign --encrypt 'Noon.'
    """
