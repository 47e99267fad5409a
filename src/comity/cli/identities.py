"""One's own keys for a command: the one that signs, those that open what was encrypted, and where their passphrase comes from.

Place on the path: beside it, between ``secure/own_keys.py`` and the commands. A passphrase comes from a file,
``COMITY_PASSPHRASE`` or a question on the terminal; never an argument (B-02). A command makes one ``Passphrase`` and asks it for
each key that needs one: a person is asked once. Without a terminal nobody is asked, so that a script never hangs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import click

from comity.cli.output import fail, printable, read_input
from comity.cpim.address import Address
from comity.errors import SecurityError
from comity.secure import Identity, KeyStore, Verdict, openpgp
from comity.secure.openpgp import PgpIdentity
from comity.secure.remembering import note, standing

ResultT = TypeVar("ResultT")

MAX_FILE = 4096
TRIES = 3

passphrase_option = click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path),
    help="First line: the passphrase of the private key. Without it COMITY_PASSPHRASE counts, or you are asked.",
)
openpgp_option = click.option("--openpgp", "is_openpgp", is_flag=True, help="With OpenPGP keys, not S/MIME ones.")


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
    return os.environb.get(b"COMITY_PASSPHRASE") or None if file is None else first_line(file, "passphrase")


def first_line(file: Path, what: str) -> bytes:
    """The first line of a file that holds a secret; ``what`` it is, for the sentence that there is none."""
    lines = read_input(str(file), MAX_FILE).splitlines()
    if not lines or not lines[0]:
        fail(f"{file} holds no {what} on its first line.")
    return lines[0]


# --- keys -------------------------------------------------------------------------------------------------------------


def need_openpgp() -> None:
    """End with a sentence if OpenPGP is not installed."""
    if not openpgp.is_available:
        fail("OpenPGP needs an extra package. Install it with: pip install 'comity[pgp]'")


def signing_identity(
    store: KeyStore, address: Address, passphrase: Passphrase, *, is_openpgp: bool = False
) -> Identity | PgpIdentity:
    """The identity that signs as ``address``; asks for its passphrase if it has one."""
    if is_openpgp:
        need_openpgp()
        sealed = address in store.pgp.addresses() and store.pgp.is_encrypted(address)
        return passphrase.open(f"{address} (OpenPGP)", sealed, partial(store.pgp.load, address))
    return own_identity(store, address, passphrase)


def own_identity(store: KeyStore, address: Address, passphrase: Passphrase) -> Identity:
    """The S/MIME identity of ``address``; asks for its passphrase if it has one."""
    sealed = address in store.identities() and store.own.is_encrypted(address)
    identity = passphrase.open(str(address), sealed, partial(store.load, address))
    end = identity.certificate.not_valid_after_utc
    if end < datetime.now(UTC):
        fail(
            f"The certificate of {address} expired on {end:%Y-%m-%d}. Make a new one: comity keys new {address} --replace"
        )
    return identity


def reading_keys(
    store: KeyStore, passphrase: Passphrase, addresses: Iterable[Address] = (), *, is_strict: bool = True
) -> list[Identity | PgpIdentity]:
    """The keys that may open what was encrypted for ``addresses``, S/MIME and OpenPGP, old ones too.

    Args:
        store: where they lie.
        passphrase: opens them.
        addresses: whose; none means everybody who has keys here.
        is_strict: False goes on without a key that does not open, and says so on stderr.

    Raises:
        SecurityError: a key does not open; if not strict, none does though a passphrase was given: what is encrypted would
            be refused for a slip of the hand.
    """
    wanted = list(addresses)
    found: list[Identity | PgpIdentity] = []
    wrong: SecurityError | None = None
    for folder in (store.own, store.pgp) if openpgp.is_available else (store.own,):
        for address in folder.reading_addresses():
            if wanted and address not in wanted:
                continue
            try:
                sealed = folder.needs_passphrase(address)
                what = f"{address} (OpenPGP)" if folder is store.pgp else str(address)
                found += passphrase.open(what, sealed, partial(folder.decrypting, address))
            except SecurityError as error:
                if is_strict:
                    raise
                wrong = wrong or error
                text = printable(f"{error} What is encrypted for {address} will not be opened.")
                click.echo(f"comity: {text}", err=True)
    if wrong is not None and not found and (passphrase.given is not None or is_asked()):
        raise wrong
    return found


def remember(store: KeyStore, verdict: Verdict, now: datetime, protocol: str = "") -> str:
    """Note who signed with which key; gives how that stands to what was seen before, "" if no signature holds.

    A disk that takes nothing is said on stderr: the verdict stands without the memory."""
    contact = standing(store, verdict)
    try:
        note(store, verdict, now, protocol)
    except SecurityError as error:
        click.echo(f"comity: not remembered: {printable(str(error))}", err=True)
    return contact
