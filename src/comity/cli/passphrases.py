"""Where a passphrase comes from: a file, ``COMITY_PASSPHRASE``, or a question on the terminal; never an argument (B-02).

Place on the path: beside it. A command makes one ``Passphrase`` and asks it for each key that needs one: a person is asked
once. Without a terminal nobody is asked, so that a script never hangs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from comity.cli.output import fail, printable, read_input
from comity.errors import SecurityError

ResultT = TypeVar("ResultT")

MAX_FILE = 4096
TRIES = 3

passphrase_option = click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path),
    help="First line: the passphrase of the private key. Without it COMITY_PASSPHRASE counts, or you are asked.",
)


def is_asked() -> bool:
    """True if there is somebody to ask: the question goes to stderr, and the answer comes from the terminal."""
    return sys.stderr.isatty()


class Passphrase:
    """The passphrase of one command.

    Args:
        file: what --passphrase-file named.
        environment: False: ``COMITY_PASSPHRASE`` does not count.
    """

    def __init__(self, file: Path | None, *, environment: bool = True) -> None:
        self._file = file
        self._known = _given(file) if file is not None or environment else None
        self._is_answer = False
        """True if a person typed it: another key may have another one, and they can be asked again."""

    @property
    def given(self) -> bytes | None:
        """What was given without a question, None if nothing was."""
        return self._known

    def new(self, what: str, *, none_wanted: bool = False) -> bytes | None:
        """The passphrase a new key gets: asked for twice on a terminal; None if it gets none.

        Without a terminal and without a word about it the key lies open, and stderr says so: scripts have made keys
        like that before there were passphrases.
        """
        if none_wanted:
            if self._file is not None:
                raise click.UsageError("--passphrase-file and --no-passphrase contradict each other.")
            return None
        if self._known is not None:
            return self._known
        if not is_asked():
            note = f"the private key of {what} is not under a passphrase: whoever reads its file can sign with it."
            click.echo(f"comity: {printable(note)} Protect it with: comity keys passphrase", err=True)
            return None
        prompt = f"New passphrase for the private key of {printable(what)}"
        answer = str(
            click.prompt(prompt, hide_input=True, confirmation_prompt=True, err=True, default="", show_default=False)
        )
        if not answer:
            fail("No passphrase was given. If you want a key that lies open, say so with --no-passphrase.")
        self._known, self._is_answer = answer.encode("utf-8"), True
        return self._known

    def open(self, what: str, is_encrypted: bool, load: Callable[[bytes | None], ResultT]) -> ResultT:
        """Give what ``load`` makes of the passphrase; on a terminal a wrong answer may be put right twice.

        Args:
            what: whose key it is, for the question.
            is_encrypted: False asks for nothing.
            load: takes the passphrase; raises SecurityError if it is wrong.
        """
        if not is_encrypted:
            return load(None)
        if self._known is None and not is_asked():
            raise SecurityError(
                f"The private key of {what} is under a passphrase, and there is no terminal to ask on. Give it with "
                "--passphrase-file or COMITY_PASSPHRASE."
            )
        if self._known is not None:
            try:
                return load(self._known)
            except SecurityError:
                if not self._is_answer:
                    raise
        for left in reversed(range(TRIES)):
            answer = str(
                click.prompt(f"Passphrase for the private key of {printable(what)}", hide_input=True, err=True)
            )
            try:
                loaded = load(answer.encode("utf-8"))
            except SecurityError as error:
                if not left:
                    raise
                click.echo(f"comity: {printable(str(error))}", err=True)
                continue
            self._known, self._is_answer = answer.encode("utf-8"), True
            return loaded
        raise AssertionError("the last try returns or raises")


def _given(file: Path | None) -> bytes | None:
    if file is None:
        return os.environb.get(b"COMITY_PASSPHRASE") or None
    lines = read_input(str(file), MAX_FILE).splitlines()
    if not lines or not lines[0]:
        fail(f"{file} holds no passphrase on its first line.")
    return lines[0]
