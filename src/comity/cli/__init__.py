"""The command line: a thin front, one module for each group of commands.

Place on the path: beside it. Exit codes: 0 good, 1 a negative result (a bad signature, an unknown account),
2 wrong use or a wrong configuration. Every error is a sentence on stderr that says what to do.
"""

from __future__ import annotations

import click

import comity
from comity.cli.admin import account, queue, trace
from comity.cli.crypto import inspect, sign, verify
from comity.cli.demo import demo
from comity.cli.encryption import decrypt, encrypt
from comity.cli.listening import listen
from comity.cli.messages import send
from comity.cli.output import Group
from comity.cli.own_keys import keys
from comity.cli.recover import recover
from comity.cli.server import config, init, serve

__all__ = ["main"]


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
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


for command in (
    init,
    serve,
    config,
    account,
    demo,
    send,
    listen,
    trace,
    queue,
    recover,
    inspect,
    sign,
    verify,
    encrypt,
    decrypt,
    keys,
):
    main.add_command(command)
