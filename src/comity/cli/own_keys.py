"""``comity keys new``, ``passphrase`` and ``revoke``: the life of one's own keys.

Place on the path: outside it, beside ``cli/keys.py``. The rule its readers must keep: a private key is written under a
passphrase, or somebody said or was told that it is not.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from comity.cli.arguments import address_of, output_option, write
from comity.cli.identities import Passphrase, is_asked, need_openpgp, own_identity, passphrase_option
from comity.cli.keys import keys
from comity.cli.output import as_json, fail, print_json, printable
from comity.cpim.address import Address
from comity.errors import SecurityError
from comity.secure import KeyStore, LocalCa, kept, new_identity, openpgp
from comity.secure.chain import display_issuer, fingerprint
from comity.secure.identity import Identity, new_key
from comity.secure.kept import Kept
from comity.secure.keyfile import is_encrypted, read_authority
from comity.secure.own_ca import REASONS, OwnCa, Reason, crl_pem, revocation_list
from comity.secure.own_keys import OwnKeys
from comity.secure.own_pgp import OwnPgp

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

__all__ = ["keys"]

Kind = Literal["p256", "ed25519", "rsa", "openpgp"]

ca_option = click.option(
    "--ca",
    type=click.Path(path_type=Path),
    help="Directory of ca.pem and ca.key (as `comity init` makes in data/tls); without it, self-signed.",
)


@keys.command("new")
@click.argument("address")
@click.option(
    "--kind",
    type=click.Choice(["p256", "ed25519", "rsa", "openpgp"]),
    default="p256",
    show_default=True,
    help="Kind of key; every S/MIME program reads p256 and rsa. ADDRESS may have an S/MIME and an OpenPGP key.",
)
@click.option("--days", type=click.IntRange(1, 3650), default=730, show_default=True, help="How long it is valid.")
@ca_option
@click.option("--own-ca", is_flag=True, help="Certify it by an authority of your own, made on first use.")
@click.option(
    "--request",
    type=click.Path(path_type=Path),
    help="Write a request (PKCS#10) for another authority here; `comity keys import` takes what it issues.",
)
@click.option("--replace", is_flag=True, help="Replace the key that ADDRESS has; the old one still opens old messages.")
@passphrase_option
@click.option("--no-passphrase", is_flag=True, help="Let the private key lie open: whoever reads the file has it.")
@as_json
def keys_new(
    *,
    address: str,
    kind: Kind,
    days: int,
    ca: Path | None,
    own_ca: bool,
    request: Path | None,
    replace: bool,
    passphrase_file: Path | None,
    no_passphrase: bool,
    as_json: bool,
) -> None:
    """Make a key and a certificate for ADDRESS: its im:, pres:, sip: and XMPP names in one.

    Correspondents trust a self-signed certificate one by one (comity keys trust), one of an authority through it.
    On a terminal you are asked for a passphrase; a script says --passphrase-file, COMITY_PASSPHRASE or --no-passphrase.

    \b
    Examples:
      comity keys new im:alice@example.org
      comity keys new im:alice@example.org --ca house/data/tls
      comity keys new im:alice@example.org --own-ca
      comity keys new im:alice@example.org --request alice.csr
    """
    if sum((ca is not None, own_ca, request is not None)) > 1:
        raise click.UsageError("Choose one of --ca, --own-ca and --request.")
    store, whose, passphrase = KeyStore(), address_of(address), Passphrase(passphrase_file)
    if kind == "openpgp" and (ca is not None or own_ca or request is not None):
        raise click.UsageError("OpenPGP knows no authorities: without --ca, --own-ca and --request.")
    if kind == "openpgp":
        need_openpgp()
    if whose in (store.pgp.addresses() if kind == "openpgp" else store.identities()) and not replace:
        fail(f"{whose} has a key already. Use it, or replace it with --replace.")
    secret = passphrase.new(str(whose), none_wanted=no_passphrase)
    if request is not None and kind != "openpgp":
        write(store.own.request(whose, new_key(kind), secret, is_new=not replace), request)
        _say_request(whose, request, as_json)
        return
    now = datetime.now(UTC)
    if kind == "openpgp":
        key = openpgp.new_identity(whose, when=now, days=days)
        store.pgp.save(key, secret, is_new=not replace)
        _say_made(store, whose, key.fingerprint, as_json)
        return
    authority = _own_authority(store, whose, secret, passphrase, now) if own_ca else _authority(ca, passphrase)
    identity = new_identity(whose, when=now, ca=authority, kind=kind, days=days)
    store.own.save(identity, secret, is_new=not replace)
    _say_made(store, whose, identity.fingerprint, as_json)
    if own_ca and authority is not None and not as_json:
        click.echo(
            f"Certified by your own authority; others believe it with: comity keys import --trust-anchor\n{fingerprint(authority.certificate)}"
        )


def _say_made(store: KeyStore, whose: Address, made: str, as_json: bool) -> None:
    if as_json:
        print_json(store.show(made))
    else:
        click.echo(f"{printable(str(whose))} has a key. Fingerprint of its certificate:\n{made}")


def _say_request(whose: Address, request: Path, as_json: bool) -> None:
    if as_json:
        print_json({"address": str(whose), "request": str(request)})
    else:
        who = printable(str(whose))
        click.echo(f"The key of {who} waits. Send {request} to the authority; then: comity keys import CERTIFICATE")


def _authority(folder: Path | None, passphrase: Passphrase) -> LocalCa | None:
    """The authority in a directory, such as a server's."""
    if folder is None:
        return None
    certificate, key = (folder / "ca.pem").read_bytes(), (folder / "ca.key").read_bytes()
    what = f"the authority in {folder}"
    return passphrase.open(what, is_encrypted(key), lambda given: read_authority(certificate, key, given))


def _own_authority(
    store: KeyStore, whose: Address, secret: bytes | None, passphrase: Passphrase, when: datetime
) -> LocalCa:
    """One's own authority; a new one lies under the passphrase of the new key, and is trusted here."""
    own = OwnCa(store.home)
    if own.exists:
        authority = passphrase.open("your authority", own.is_encrypted, own.open)
    else:
        name = str(whose).partition(":")[2]
        authority = own.create(f"Comity CA of {name}", when=when, passphrase=secret)
    store.put("anchors", authority.certificate)
    return authority


# --- passphrase -------------------------------------------------------------------------------------------------------


@keys.command("passphrase")
@click.argument("address")
@passphrase_option
@click.option("--new-passphrase-file", type=click.Path(path_type=Path), help="First line: the new passphrase.")
@click.option("--no-passphrase", is_flag=True, help="Take the passphrase off: whoever reads the file has the key.")
def keys_passphrase(
    address: str, passphrase_file: Path | None, new_passphrase_file: Path | None, no_passphrase: bool
) -> None:
    """Put the private keys of ADDRESS under another passphrase, or take it off.

    Old keys that are under the same passphrase follow; so does the key of your own authority, unless it would lie open.

    \b
    Examples:
      comity keys passphrase im:alice@example.org
      comity keys passphrase im:alice@example.org --passphrase-file old.txt --new-passphrase-file new.txt
    """
    store, whose, old = KeyStore(), address_of(address), Passphrase(passphrase_file)
    folders = [each for each in (store.own, store.pgp) if whose in each.reading_addresses()]
    if not folders:
        fail(f"There is no key for {whose}. Make one with: comity keys new {whose}")
    given = [old.open(str(whose), each.needs_passphrase(whose), partial(_tried, each, whose)) for each in folders]
    new = Passphrase(new_passphrase_file, environment=False)
    if new.given is None and not no_passphrase and not is_asked():
        raise click.UsageError("Say the new passphrase with --new-passphrase-file, or --no-passphrase.")
    secret = new.new(str(whose), none_wanted=no_passphrase)
    for each, before in zip(folders, given, strict=True):
        each.change_passphrase(whose, before, secret)
    own = OwnCa(store.home)
    if own.exists and secret is not None:
        try:
            own.change_passphrase(given[0], secret)
        except SecurityError:
            click.echo("comity: the key of your own authority is under another passphrase, and stays so.", err=True)
    click.echo(f"The private key of {printable(str(whose))} is {'' if secret else 'not '}under a passphrase.")


def _tried(keys: OwnKeys | OwnPgp, whose: Address, given: bytes | None) -> bytes | None:
    """The passphrase, if it opens a key."""
    keys.decrypting(whose, given)
    return given


# --- revoke -----------------------------------------------------------------------------------------------------------


@keys.command("revoke")
@click.argument("reference", metavar="ADDRESS|FINGERPRINT")
@click.option("--reason", type=click.Choice(REASONS), default="unspecified", show_default=True, help="Why.")
@ca_option
@passphrase_option
@output_option
def keys_revoke(
    reference: str, reason: Reason, ca: Path | None, passphrase_file: Path | None, output: Path | None
) -> None:
    """Revoke a key of yours, or a certificate that your authority issued; writes the list to give to everybody.

    Who takes it in with `comity keys import` never trusts the certificate again. The key still opens old messages, and
    signs no more. A certificate of somebody else's authority only that authority can revoke: ask it.

    \b
    Examples:
      comity keys revoke im:alice@example.org --reason key-compromise -o revoked.crl
      comity keys revoke 5f70bf18a086007016e948b04aed3b82 --ca house/data/tls -o revoked.crl
    """
    store, passphrase, now = KeyStore(), Passphrase(passphrase_file), datetime.now(UTC)
    found = store.find(reference)
    if found.x509 is None:
        _revoke_openpgp(store, found, passphrase, output)
    else:
        owner = next((each for each in store.identities() if store.own.certificate(each) == found.x509), None)
        issuer = _issuer_of(found.x509, owner, store, ca, passphrase)
        crl = revocation_list(
            issuer.certificate, issuer.key, found.x509, when=now, reason=reason, earlier=list(store.crls())
        )
        store.keep_crl(crl)
        write(crl_pem(crl), output)
        if owner is not None:
            store.own.retire(owner)
    click.echo(f"Revoked: {found.fingerprint}. Give what was written to everybody who has the certificate.", err=True)


def _revoke_openpgp(store: KeyStore, found: Kept, passphrase: Passphrase, output: Path | None) -> None:
    """Write the own OpenPGP certificate with its revocation, armored, then retire the key: till then it can be done again."""
    need_openpgp()
    for owner in store.pgp.addresses():
        if kept.of_openpgp(store.pgp.certificate(owner)).fingerprint == found.fingerprint:
            load = partial(store.pgp.load, owner)
            revoked = openpgp.revoke(passphrase.open(str(owner), store.pgp.is_encrypted(owner), load))
            store.pgp.replace_certificate(owner, revoked)
            write(kept.armored(revoked), output)
            store.pgp.retire(owner)
            return
    fail("Only its owner can revoke an OpenPGP certificate. To trust it no more: comity keys distrust")


def _issuer_of(
    certificate: Certificate, owner: Address | None, store: KeyStore, ca: Path | None, passphrase: Passphrase
) -> LocalCa | Identity:
    """Who can revoke a certificate: the authority given, one's own, or the key itself."""
    authority = _authority(ca, passphrase)
    if authority is not None:
        return authority
    if owner is not None and certificate.issuer == certificate.subject:
        return own_identity(store, owner, passphrase)
    own = OwnCa(store.home)
    if own.exists and own.certificate.subject == certificate.issuer:
        return passphrase.open("your authority", own.is_encrypted, own.open)
    fail(f"It was issued by {display_issuer(certificate)}: ask there to revoke it, or give the authority with --ca.")
