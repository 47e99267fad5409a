"""``comity inspect``, ``comity sign``, ``comity verify`` and ``comity keys``.

Place on the path: outside it: these run where a person's keys are, never on a server. Keys and trust lie in
``COMITY_HOME``. Only the verdict "valid" ends ``verify`` with exit code 0.
"""

from __future__ import annotations

import base64
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import click

from comity.cli.dissect import MAX_FILE, Dissection, Layer, as_entity, dissect
from comity.cli.output import NEGATIVE, Group, as_json, fail, print_json, print_table, printable, read_input
from comity.cpim.address import Address
from comity.cpim.entity import cpim_view
from comity.errors import AddressError, MalformedMessage
from comity.secure import KeyEntry, KeyStore, canonical_text, new_identity
from comity.secure import sign as make_signature
from comity.secure import verify as judge
from comity.secure.keystore import read_authority

file_argument = click.argument("file", metavar="FILE|-")
output_option = click.option("-o", "--output", type=click.Path(path_type=Path), help="Write here, not to stdout.")
passphrase_option = click.option(
    "--passphrase-file", type=click.Path(path_type=Path), help="First line: the passphrase of the private key."
)


def address_of(text: str) -> Address:
    """An address given on the command line: ``alice@example.org``, or with any of our schemes."""
    try:
        return Address.from_any(text if ":" in text.partition("@")[0] else f"im:{text}")
    except AddressError as error:
        fail(f"{error}. Write it as im:alice@example.org.")


def _passphrase(path: Path | None) -> bytes | None:
    if path is None:
        return None
    lines = path.read_bytes().splitlines()
    if not lines or not lines[0]:
        fail(f"{path} holds no passphrase on its first line.")
    return lines[0]


def _write(octets: bytes, output: Path | None) -> None:
    if output is None:
        sys.stdout.buffer.write(octets)
        sys.stdout.buffer.flush()
    else:
        output.write_bytes(octets)


# --- inspect ----------------------------------------------------------------------------------------------------------


@click.command()
@file_argument
@as_json
def inspect(file: str, as_json: bool) -> None:
    """Show the layers of a message/cpim object: headers, offsets, and what is malformed and why.

    FILE is a MIME entity (Content-Type first) or a bare object (From first). Nothing is verified.
    Exit code 0: well formed; 1: malformed.

    \b
    Examples:
      comity inspect message.cpim
      comity inspect --json - < message.eml
    """
    found = dissect(read_input(file, MAX_FILE))
    if as_json:
        print_json({"well_formed": found.is_well_formed, **_fields(found)})
    else:
        _show(file, found)
    if not found.is_well_formed:
        click.get_current_context().exit(NEGATIVE)


def _fields(found: Dissection) -> dict[str, object]:
    return {name: getattr(found, name) for name in ("form", "octets", "sha256", "layers", "problems")}


TITLES = {"mime": "MIME headers", "message": "message headers", "content": "content", "part": "body part"}


def _show(name: str, found: Dissection) -> None:
    what = "MIME entity" if found.form == "entity" else "bare message/cpim object"
    click.echo(f"{printable(name)}: {what}, {found.octets} octets\nsha256 of the object: {found.sha256}")
    for layer in found.layers:
        _show_layer(layer)
    for problem in found.problems:
        word = "malformed" if problem.is_malformed else "note"
        where = "" if problem.offset is None else f" at octet {problem.offset}"
        context = f": {printable(problem.context)}" if problem.context else ""
        click.echo(f"\n{word} in {problem.path}{where}: {problem.reason}{context}")
    if found.is_well_formed:
        click.echo("\nWell formed.")


def _show_layer(layer: Layer) -> None:
    where = " (none in the file)" if layer.offset is None else f" from octet {layer.offset}"
    click.echo(f"\n{layer.path} {TITLES[layer.kind]}{where}, {layer.octets} octets")
    for line in layer.headers:
        offset = "" if line.offset is None else str(line.offset)
        params = "".join(f";{key}={value}" for key, value in line.params)
        namespace = f"  <{line.namespace}>" if line.namespace else ""
        click.echo(f"{offset:>8}  {printable(f'{line.name}{params}: {line.value}{namespace}')}")
    if layer.kind != "message":
        start = "" if layer.body_offset is None else str(layer.body_offset)
        click.echo(
            f"{start:>8}  ({layer.body_octets} octets of {printable(layer.type.partition(';')[0]) or 'no type'})"
        )
    for text in layer.text.splitlines():
        click.echo(f"          {printable(text)}")


# --- sign and verify --------------------------------------------------------------------------------------------------


@click.command()
@file_argument
@click.option("--from", "from_", metavar="ADDRESS", help="Who signs; by default whom the object's From names.")
@click.option(
    "--form",
    type=click.Choice(["multipart", "signed-data"]),
    default="multipart",
    show_default=True,
    help="Readable everywhere, or one block that no path rewrites.",
)
@click.option("--crlf", is_flag=True, help="First make every line end CR LF, as signing demands.")
@passphrase_option
@output_option
@as_json
def sign(
    *,
    file: str,
    from_: str | None,
    form: Literal["multipart", "signed-data"],
    crlf: bool,
    passphrase_file: Path | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Sign a whole MIME entity with a key of COMITY_HOME; the result is a MIME entity again.

    A bare message/cpim object (From first) gets its Content-Type before it is signed.

    \b
    Examples:
      comity sign --from im:alice@example.org message.cpim -o signed.eml
      comity sign --form signed-data - < message.cpim > signed.eml
    """
    raw = read_input(file, MAX_FILE)
    obj, _ = as_entity(canonical_text(raw) if crlf else raw)
    address = address_of(from_) if from_ else _sender(obj.entity)
    identity = KeyStore().load(address, _passphrase(passphrase_file))
    signed = make_signature(obj, identity, when=datetime.now(UTC), form=form)
    if as_json:
        facts = {"from": str(address), "fingerprint": identity.fingerprint, "sha256": signed.fingerprint, "form": form}
        if output is None:
            print_json({**facts, "entity": base64.b64encode(signed.entity).decode("ascii")})
            return
        print_json(facts)
    _write(signed.entity, output)


def _sender(entity: bytes) -> Address:
    try:
        message = cpim_view(as_entity(entity)[0])
    except MalformedMessage as error:
        fail(f"The object cannot be read: {error}. See: comity inspect; --crlf repairs line ends.")
    if message is None or message.from_ is None:
        fail("The object names no single sender. Say who signs with --from im:alice@example.org.")
    return address_of(message.from_.uri)


@click.command()
@file_argument
@click.option("--from", "from_", metavar="ADDRESS", help="The sender by the protocol around it; must be the same.")
@click.option("--to", metavar="ADDRESS", help="The recipient who got it; must stand in To or cc.")
@click.option("--at", metavar="TIME", help="Judge as of this time (2026-01-31T12:00:00Z), by default now.")
@output_option
@as_json
def verify(*, file: str, from_: str | None, to: str | None, at: str | None, output: Path | None, as_json: bool) -> None:
    """Say what an object proves about its sender, by the keys and the trust of COMITY_HOME.

    Exit code 0 only for the verdict "valid". With -o the octets that the verdict is about are written.

    \b
    Examples:
      comity verify signed.eml
      comity verify --json - < signed.eml
    """
    obj, _ = as_entity(read_input(file, MAX_FILE))
    verdict = judge(
        obj,
        KeyStore().trust_store(),
        now=_time(at),
        expected_from=address_of(from_) if from_ else None,
        expected_to=address_of(to) if to else None,
    )
    if output is not None and verdict.content is not None:
        _write(verdict.content.entity, output)
    if as_json:
        print_json(verdict.to_json())
    else:
        click.echo(f"verdict  {verdict.verdict.value}\nreason   {printable(verdict.reason)}")
        click.echo(f"from     {printable(verdict.from_) or 'nobody'}\nsigner   {printable(verdict.signer) or 'nobody'}")
        click.echo(f"sha256   {verdict.sha256}")
    if not verdict.is_valid:
        click.get_current_context().exit(NEGATIVE)


def _time(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC)
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}. Write it as 2026-01-31T12:00:00Z.", param_hint="--at") from error
    if when.tzinfo is None:
        raise click.BadParameter("The time zone is missing. Write it as 2026-01-31T12:00:00Z.", param_hint="--at")
    return when.astimezone(UTC)


# --- keys -------------------------------------------------------------------------------------------------------------


@click.group(cls=Group)
def keys() -> None:
    """Your keys, and whom you trust; kept in COMITY_HOME (default ~/.local/share/comity)."""


@keys.command("new")
@click.argument("address")
@click.option(
    "--kind",
    type=click.Choice(["p256", "ed25519", "rsa"]),
    default="p256",
    show_default=True,
    help="Kind of key; every S/MIME program reads p256 and rsa.",
)
@click.option("--days", type=click.IntRange(1, 3650), default=730, show_default=True, help="How long it is valid.")
@click.option(
    "--ca",
    type=click.Path(path_type=Path),
    help="Directory of ca.pem and ca.key (as `comity init` makes in data/tls); without it, self-signed.",
)
@click.option("--replace", is_flag=True, help="Replace the key that ADDRESS has; what it signed stays signed.")
@passphrase_option
@as_json
def keys_new(
    *,
    address: str,
    kind: Literal["p256", "ed25519", "rsa"],
    days: int,
    ca: Path | None,
    replace: bool,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Make a key and a certificate for ADDRESS.

    Correspondents trust a self-signed certificate one by one (comity keys trust), one of an authority through it.

    \b
    Examples:
      comity keys new im:alice@example.org
      comity keys new im:alice@example.org --ca house/data/tls
    """
    store = KeyStore()
    whose = address_of(address)
    if whose in store.identities() and not replace:
        fail(f"{whose} has a key already. Use it, or replace it with --replace.")
    authority = read_authority((ca / "ca.pem").read_bytes(), (ca / "ca.key").read_bytes()) if ca else None
    identity = new_identity(whose, when=datetime.now(UTC), ca=authority, kind=kind, days=days)
    store.save(identity, _passphrase(passphrase_file))
    entry = store.show(identity.fingerprint)
    if as_json:
        print_json(entry)
    else:
        click.echo(f"{whose} has a key. Fingerprint of its certificate:\n{identity.fingerprint}")


@keys.command("list")
@as_json
def keys_list(as_json: bool) -> None:
    """List your own keys, the authorities and the certificates you trust, and those you never will.

    \b
    Example:
      comity keys list --json
    """
    entries = KeyStore().entries()
    if as_json:
        print_json(entries)
        return
    rows = [
        (e.shelf, e.fingerprint[:16], ", ".join(e.addresses[:1]) or e.subject, f"{e.not_after:%Y-%m-%d}")
        for e in entries
    ]
    print_table(("shelf", "fingerprint", "whose", "until"), rows, "There is no key. Make one: comity keys new ADDRESS")


@keys.command("show")
@click.argument("reference", metavar="FINGERPRINT|ADDRESS")
@as_json
def keys_show(reference: str, as_json: bool) -> None:
    """Show one certificate: whose it is, from when to when, and how it is trusted.

    \b
    Example:
      comity keys show im:alice@example.org
    """
    entry = KeyStore().show(reference)
    print_json(entry) if as_json else _show_entry(entry)


def _show_entry(entry: KeyEntry) -> None:
    click.echo(f"fingerprint  {entry.fingerprint}\nshelf        {entry.shelf}\nsubject      {printable(entry.subject)}")
    for address in entry.addresses:
        click.echo(f"address      {printable(address)}")
    click.echo(f"valid        {entry.not_before:%Y-%m-%d %H:%M} to {entry.not_after:%Y-%m-%d %H:%M} UTC")
    if entry.is_encrypted:
        click.echo("key          under a passphrase")


@keys.command("import")
@file_argument
@click.option("--trust-anchor", is_flag=True, help="Trust it as an authority: everybody it certifies is believed.")
@passphrase_option
@as_json
def keys_import(file: str, trust_anchor: bool, passphrase_file: Path | None, as_json: bool) -> None:
    """Take in certificates, a key with its certificate (PEM, PKCS#12), or a revocation list.

    Without --trust-anchor a certificate is kept, not trusted; see `comity keys trust`.

    \b
    Examples:
      comity keys import ca.pem --trust-anchor
      comity keys import alice.p12 --passphrase-file pass.txt
    """
    passphrase = _passphrase(passphrase_file)
    entries = KeyStore().import_file(
        read_input(file, MAX_FILE), is_anchor=trust_anchor, passphrase=passphrase, new_passphrase=passphrase
    )
    if as_json:
        print_json(entries)
        return
    for entry in entries:
        click.echo(
            f"{entry.shelf}: {entry.fingerprint[:16]} {printable(', '.join(entry.addresses[:1]) or entry.subject)}"
        )
    if not entries:
        click.echo("The revocation list was taken in.")


@keys.command("export")
@click.argument("reference", metavar="FINGERPRINT|ADDRESS")
@click.option("--private", is_flag=True, help="With the private key, as PKCS#12 under --passphrase-file.")
@passphrase_option
@output_option
def keys_export(reference: str, private: bool, passphrase_file: Path | None, output: Path | None) -> None:
    """Write a certificate as PEM, to give to others; with --private your key, to take to another machine.

    \b
    Examples:
      comity keys export im:alice@example.org -o alice.pem
      comity keys export im:alice@example.org --private --passphrase-file pass.txt -o alice.p12
    """
    store = KeyStore()
    if not private:
        _write(store.export(reference), output)
        return
    if passphrase_file is None or output is None:
        raise click.UsageError("A private key is written to a file (-o), under a passphrase (--passphrase-file).")
    passphrase = _passphrase(passphrase_file)
    assert passphrase is not None
    octets = store.export_private(address_of(reference), passphrase, old_passphrase=passphrase)
    output.touch(mode=0o600, exist_ok=False)
    output.write_bytes(octets)


@keys.command("trust")
@click.argument("what", metavar="FILE|FINGERPRINT")
@as_json
def keys_trust(what: str, as_json: bool) -> None:
    """Trust one certificate as it stands, whoever issued it. Compare its fingerprint with its owner first.

    \b
    Example:
      comity keys trust bob.pem
    """
    _trusted(KeyStore().trust(_file_or_reference(what)), as_json, "is trusted")


@keys.command("distrust")
@click.argument("what", metavar="FILE|FINGERPRINT")
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


def _trusted(entry: KeyEntry, as_json: bool, text: str) -> None:
    whose = ", ".join(entry.addresses[:1]) or entry.subject
    print_json(entry) if as_json else click.echo(f"{printable(whose)} {text}: {entry.fingerprint}")
