"""``comity keys``: one's own keys, and whom one trusts.

Place on the path: outside it: this runs where a person's keys are, never on a server. Everything lies in ``COMITY_HOME``
(``secure/keystore.py``). Making and revoking own keys is in ``cli/own_keys.py``, which adds its commands to this group.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import click

from comity.cli.arguments import address_of, file_argument, output_option, write, write_private
from comity.cli.dissect import MAX_FILE
from comity.cli.identities import Passphrase, passphrase_option
from comity.cli.output import Group, as_json, print_json, print_table, printable, read_input
from comity.secure import KeyEntry, KeyStore
from comity.secure.kept import holds_key

TRUST = {
    "own": "it is yours",
    "old": "it was yours; it opens old messages and signs no more",
    "anchors": "you believe whomever it certifies",
    "pinned": "you trust this very certificate",
    "known": "kept, not trusted; compare the fingerprint with its owner, then: comity keys trust",
    "distrusted": "you never trust it, nor what it issued",
}


@click.group(cls=Group)
def keys() -> None:
    """Your keys, and whom you trust; kept in COMITY_HOME (default ~/.local/share/comity).

    \b
    To be believed by others:       comity keys new, then export, and tell them the fingerprint
    To believe others:              comity keys import, show, compare the fingerprint, then trust
    If a key is lost or stolen:     comity keys revoke; theirs: distrust
    """


@keys.command("list")
@as_json
def keys_list(as_json: bool) -> None:
    """List your own keys, the authorities and the certificates you trust, and those you never will.

    \b
    Example:
      comity keys list --json
    """
    store = KeyStore()
    entries, waiting = store.entries(), store.own.waiting()
    if as_json:
        print_json(entries)
        return
    rows = [(e.shelf, e.technology, e.fingerprint[:16], _whose(e), _until(e)[:10]) for e in entries]
    titles = ("shelf", "kind", "fingerprint", "whose", "until")
    print_table(titles, rows, "There is no key. Make one: comity keys new ADDRESS")
    for address in waiting:
        click.echo(f"The key of {printable(str(address))} waits for its certificate: comity keys import FILE")


@keys.command("show")
@click.argument("reference", metavar="FINGERPRINT|ADDRESS")
@as_json
def keys_show(reference: str, as_json: bool) -> None:
    """Show one certificate: whose it is, from when to when, how it is trusted, and which keys its owner used before.

    Read the fingerprint to each other on the telephone, or meet: only that tells who really has the key.

    \b
    Examples:
      comity keys show im:alice@example.org
      comity keys show 5f70bf18a086007016e948b04aed3b82
    """
    entry = KeyStore().show(reference)
    print_json(entry) if as_json else _show_entry(entry)


def _show_entry(entry: KeyEntry) -> None:
    first, *more = grouped(entry.fingerprint)
    click.echo(f"fingerprint  {first}")
    for line in more:
        click.echo(f"             {line}")
    click.echo(f"kind         {KINDS[entry.technology]}, to {entry.use.replace(', ', ' and ')}")
    click.echo(f"trust        {entry.shelf}: {TRUST[entry.shelf]}\nsubject      {printable(entry.subject)}")
    for address in entry.addresses:
        click.echo(f"address      {printable(address)}")
    click.echo(f"valid        {entry.not_before:%Y-%m-%d %H:%M} to {_until(entry)} UTC")
    if entry.is_revoked:
        click.echo("revoked      by its owner: never trusted again")
    if entry.is_encrypted:
        click.echo("key          under a passphrase")
    for contact in entry.history:
        this = "this key" if entry.fingerprint in (contact.fingerprint, contact.key) else contact.fingerprint[:16]
        by = f" by {contact.protocol}" if contact.protocol else ""
        state = "" if contact.is_accepted else ", not confirmed by you"
        click.echo(f"seen         {contact.since:%Y-%m-%d %H:%M} UTC{by}: {this}{state}")


KINDS = {"smime": "S/MIME certificate", "openpgp": "OpenPGP certificate"}


def _until(entry: KeyEntry) -> str:
    return "no end" if entry.not_after is None else f"{entry.not_after:%Y-%m-%d %H:%M}"


def grouped(fingerprint: str) -> list[str]:
    """A fingerprint for reading aloud: groups of four, eight to a line."""
    groups = [fingerprint[at : at + 4] for at in range(0, len(fingerprint), 4)]
    return [" ".join(groups[at : at + 8]) for at in range(0, len(groups), 8)]


@keys.command("import")
@file_argument
@click.option("--trust-anchor", is_flag=True, help="Trust it as an authority: everybody it certifies is believed.")
@passphrase_option
@click.option("--no-passphrase", is_flag=True, help="Let the private key lie open here: whoever reads the file has it.")
@as_json
def keys_import(
    *, file: str, trust_anchor: bool, passphrase_file: Path | None, no_passphrase: bool, as_json: bool
) -> None:
    """Take in certificates (PEM, DER, OpenPGP), a key with its certificate (PEM, PKCS#12, OpenPGP), a revocation list.

    A private key lies here under the passphrase that opened it, or gets one; with --trust-anchor none is taken in. A
    certificate is kept, not trusted, unless --trust-anchor is given; see `comity keys trust`. One that a key of yours was
    waiting for (`comity keys new --request`) is joined to that key.

    \b
    Examples:
      comity keys import ca.pem --trust-anchor
      comity keys import alice.p12 --passphrase-file pass.txt
      comity keys import revoked.crl
    """
    data, store, passphrase = read_input(file, MAX_FILE), KeyStore(), Passphrase(passphrase_file)
    sealed = None if trust_anchor else holds_key(data)
    if sealed is False:
        new = passphrase.new(file, none_wanted=no_passphrase)
        entries = store.import_file(data, is_anchor=trust_anchor, new_passphrase=new)
    else:
        keep = (lambda given: None) if no_passphrase else (lambda given: given)
        entries = passphrase.open(
            file,
            bool(sealed),
            lambda given: store.import_file(data, is_anchor=trust_anchor, passphrase=given, new_passphrase=keep(given)),
        )
    if as_json:
        print_json(entries)
        return
    for entry in entries:
        click.echo(f"{entry.shelf}: {entry.fingerprint[:16]} {printable(_whose(entry))}")
        if entry.shelf == "known" and not entry.is_revoked:
            click.echo(f"             {TRUST['known']} {entry.fingerprint[:16]}")
    if not entries:
        click.echo("The revocation list was taken in.")


@keys.command("export")
@click.argument("reference", metavar="FINGERPRINT|ADDRESS")
@click.option("--private", is_flag=True, help="With the private key, under its passphrase or --passphrase-file.")
@click.option(
    "--form",
    type=click.Choice(["pkcs12", "pem", "openpgp"]),
    default="pkcs12",
    show_default=True,
    help="Of the private key; an Ed25519 identity has two keys and needs pem. openpgp: that key of ADDRESS.",
)
@passphrase_option
@output_option
def keys_export(
    *,
    reference: str,
    private: bool,
    form: Literal["pkcs12", "pem", "openpgp"],
    passphrase_file: Path | None,
    output: Path | None,
) -> None:
    """Write a certificate, to give to others; with --private your key, to take to another machine.

    An S/MIME certificate is written as PEM, an OpenPGP one armored. Of an ADDRESS that has both, the S/MIME one is
    meant unless --form openpgp says otherwise.

    \b
    Examples:
      comity keys export im:alice@example.org -o alice.pem
      comity keys export im:alice@example.org --private --passphrase-file pass.txt -o alice.p12
    """
    store = KeyStore()
    if not private:
        write(store.export(reference, "openpgp" if form == "openpgp" else ""), output)
        return
    passphrase = Passphrase(passphrase_file)
    if output is None or passphrase.given is None:
        raise click.UsageError("A private key is written to a file (-o), under a passphrase (--passphrase-file).")
    address, given = address_of(reference), passphrase.given
    encrypted = (store.pgp if form == "openpgp" else store.own).is_encrypted(address)
    write_private(store.export_private(address, given, old_passphrase=given if encrypted else None, form=form), output)


@keys.command("trust")
@click.argument("what", metavar="FILE|FINGERPRINT|ADDRESS")
@as_json
def keys_trust(what: str, as_json: bool) -> None:
    """Trust one certificate as it stands, whoever issued it. Compare its fingerprint with its owner first.

    Its key becomes the one its owner is known by; after a changed key this is how you accept the new one.

    \b
    Examples:
      comity keys trust bob.pem
      comity keys trust 5f70bf18a086007016e948b04aed3b82
    """
    _trusted(KeyStore().trust(_file_or_reference(what), when=datetime.now(UTC)), as_json, "is trusted")


@keys.command("distrust")
@click.argument("what", metavar="FILE|FINGERPRINT|ADDRESS")
@as_json
def keys_distrust(what: str, as_json: bool) -> None:
    """Never trust a certificate again, nor what it issued.

    \b
    Example:
      comity keys distrust 5f70bf18a086007016e948b04aed3b82
    """
    _trusted(KeyStore().distrust(_file_or_reference(what)), as_json, "will not be trusted")


def _file_or_reference(what: str) -> bytes | str:
    return read_input(what, MAX_FILE) if what == "-" or Path(what).is_file() else what


def _whose(entry: KeyEntry) -> str:
    return (", ".join(entry.addresses[:1]) or entry.subject) + (" (revoked)" if entry.is_revoked else "")


def _trusted(entry: KeyEntry, as_json: bool, text: str) -> None:
    print_json(entry) if as_json else click.echo(f"{printable(_whose(entry))} {text}: {entry.fingerprint}")
