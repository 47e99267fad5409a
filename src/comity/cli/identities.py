"""One's own keys for a command: the one that signs, and those that open what was encrypted.

Place on the path: beside it, between ``secure/own_keys.py`` and the commands. Passphrases are asked for here, once.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial

import click

from comity.cli.output import fail, printable
from comity.cli.passphrases import Passphrase, is_asked
from comity.cpim.address import Address
from comity.errors import SecurityError
from comity.secure import Identity, KeyStore, Verdict, openpgp
from comity.secure.openpgp import PgpIdentity
from comity.secure.remembering import note, standing

openpgp_option = click.option("--openpgp", "is_openpgp", is_flag=True, help="With OpenPGP keys, not S/MIME ones.")


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
        return passphrase.open(str(address), sealed, partial(store.pgp.load, address))
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
                found += passphrase.open(str(address), sealed, partial(folder.decrypting, address))
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
