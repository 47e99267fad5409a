"""``comity encrypt`` and ``comity decrypt``.

Place on the path: outside it: these run where a person's keys are, never on a server. What cannot be proved unchanged is
not written (M-28), and why something does not open is not said (M-33).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from comity.cli.arguments import address_of, file_argument, output_option, write
from comity.cli.crypto import sender_of
from comity.cli.dissect import MAX_ENTITY, as_entity
from comity.cli.identities import (
    Passphrase,
    need_openpgp,
    openpgp_option,
    passphrase_option,
    reading_keys,
    signing_identity,
)
from comity.cli.output import NEGATIVE, as_json, fail, print_json, printable, read_input
from comity.cpim.address import Address
from comity.cpim.operations import MimeObject
from comity.errors import MalformedMessage
from comity.secure import Identity, KeyStore, VerdictKind, canonical_text, verify
from comity.secure import decrypt as open_layer
from comity.secure import encrypt as seal
from comity.secure.evidence import DecryptionFailed, NoKey, TooLarge, UnknownAlgorithm
from comity.secure.openpgp import PgpIdentity
from comity.secure.recipients import Recipient, find_recipient

unverified_option = click.option(
    "--to-unverified", is_flag=True, help="Encrypt even for a certificate you only know from a first signed contact."
)


def recipients_of(
    store: KeyStore, addresses: Sequence[Address], *, is_openpgp: bool, to_unverified: bool, now: datetime
) -> list[Recipient]:
    """A certificate for each of ``addresses``; says on stderr for whom nobody vouches."""
    found = [
        find_recipient(
            store, each, now=now, technology="openpgp" if is_openpgp else "smime", to_unverified=to_unverified
        )
        for each in addresses
    ]
    for each in found:
        if not each.is_trusted:
            text = (
                f"nobody vouches for {each.fingerprint[:16]}; whoever made it, not surely {each.address}, can read this"
            )
            click.echo(f"comity: {printable(text)}", err=True)
    return found


def encrypted_for(
    obj: MimeObject, recipients: Sequence[Recipient], signer: Identity | PgpIdentity | None, when: datetime
) -> MimeObject:
    """Sign if somebody signs, then encrypt; base64, which every path carries (XMPP has no other way, XMPP-19)."""
    return seal(
        obj,
        [each.certificate for each in recipients],  # type: ignore[arg-type]  # all of one kind, which seal checks
        signer=signer,
        when=when,
        capabilities=[each.capabilities for each in recipients],
        encoding="base64",
    )


@click.command()
@file_argument
@click.option("--to", "to", metavar="ADDRESS", required=True, multiple=True, help="Who can read it; may be repeated.")
@click.option("--sign", "is_signed", is_flag=True, help="Sign it first, so that they know who wrote it.")
@click.option("--from", "from_", metavar="ADDRESS", help="Who signs; by default whom the object's From names.")
@openpgp_option
@unverified_option
@click.option("--crlf", is_flag=True, help="First make every line end CR LF, as signing demands.")
@passphrase_option
@output_option
@as_json
def encrypt(
    *,
    file: str,
    to: tuple[str, ...],
    is_signed: bool,
    from_: str | None,
    is_openpgp: bool,
    to_unverified: bool,
    crlf: bool,
    passphrase_file: Path | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Encrypt a whole MIME entity, so that only --to can read it; the result is a MIME entity again.

    It is encrypted for certificates you trust: pinned (comity keys trust), or of an authority you believe. Encryption
    alone does not say who wrote it: take --sign along. To read it again yourself, name yourself with --to too.

    \b
    Examples:
      comity encrypt message.cpim --to im:bob@example.net --sign -o sealed.eml
      comity encrypt - --to im:bob@example.net --to im:carol@example.com < message.cpim > sealed.eml
    """
    if is_openpgp:
        need_openpgp()
    now, store = datetime.now(UTC), KeyStore()
    raw = read_input(file, MAX_ENTITY)
    obj, _ = as_entity(canonical_text(raw) if crlf else raw)
    addresses = [address_of(each) for each in to]
    recipients = recipients_of(store, addresses, is_openpgp=is_openpgp, to_unverified=to_unverified, now=now)
    signer = None
    if is_signed:
        address = address_of(from_) if from_ else sender_of(obj.entity)
        signer = signing_identity(store, address, Passphrase(passphrase_file), is_openpgp=is_openpgp)
    sealed = encrypted_for(obj, recipients, signer, now)
    if as_json:
        facts = {
            "to": [{"address": str(each.address), "fingerprint": each.fingerprint} for each in recipients],
            "signer": str(signer.address) if signer is not None else "",
            "sha256": sealed.fingerprint,
        }
        if output is None:
            print_json({**facts, "entity": base64.b64encode(sealed.entity).decode("ascii")})
            return
        print_json(facts)
    write(sealed.entity, output)


@click.command()
@file_argument
@click.option("--as", "as_", metavar="ADDRESS", help="Whose keys open it; by default all that are here.")
@passphrase_option
@output_option
@as_json
def decrypt(*, file: str, as_: str | None, passphrase_file: Path | None, output: Path | None, as_json: bool) -> None:
    """Open one layer of encryption and write what is inside, a MIME entity; say on stderr what that proves.

    Decrypted is not signed: look at the verdict, or give what is written to `comity verify`. Something encrypted in the
    old way, without protection against changes, is written only if a signature inside proves that there was none.
    Exit code 0: it was opened; 1: it is not for your keys, or does not open.

    \b
    Examples:
      comity decrypt sealed.eml -o inside.eml
      comity decrypt - --json < sealed.eml
    """
    store = KeyStore()
    obj, _ = as_entity(read_input(file, MAX_ENTITY))
    keys = reading_keys(store, Passphrase(passphrase_file), [address_of(as_)] if as_ else [])
    try:
        opened = open_layer(obj, keys)
    except (NoKey, DecryptionFailed, UnknownAlgorithm, TooLarge) as error:
        fail(_sentence(str(error)), NEGATIVE)
    except MalformedMessage as error:
        fail(f"This is no encrypted object that can be read: {error}.", NEGATIVE)
    verdict = verify(obj, store.trust_store(), now=datetime.now(UTC), keys=keys)
    if verdict.verdict is VerdictKind.DECRYPTED_UNAUTHENTICATED:
        fail(verdict.reason, NEGATIVE)
    facts = {
        "recipient": opened.recipient,
        "algorithm": opened.algorithm,
        "authenticated": opened.is_authenticated,
        "verdict": verdict.to_json(),
    }
    if as_json and output is None:
        print_json({**facts, "entity": base64.b64encode(opened.entity).decode("ascii")})
        return
    if as_json:
        print_json(facts)
    else:
        click.echo(
            f"comity: opened ({opened.algorithm}); {verdict.verdict.value}: {printable(verdict.reason)}", err=True
        )
    write(opened.entity, output)


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith(".") else text + "."
