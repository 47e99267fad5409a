"""``comity inspect``, ``comity sign`` and ``comity verify``.

Place on the path: outside it: these run where a person's keys are, never on a server. Keys and trust lie in
``COMITY_HOME``. Only the verdict "valid" ends ``verify`` with exit code 0.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

import click

from comity.cli.arguments import address_of, file_argument, output_option, time_of, write
from comity.cli.dissect import MAX_ENTITY, MAX_FILE, Dissection, Layer, as_entity, dissect
from comity.cli.identities import (
    Passphrase,
    openpgp_option,
    passphrase_option,
    reading_keys,
    remember,
    signing_identity,
)
from comity.cli.output import NEGATIVE, as_json, fail, print_json, printable, read_input
from comity.cpim.address import Address
from comity.cpim.entity import cpim_view
from comity.errors import MalformedMessage
from comity.secure import KeyStore, Verdict, VerdictKind, canonical_text
from comity.secure import sign as make_signature
from comity.secure import verify as judge

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
@openpgp_option
@click.option("--crlf", is_flag=True, help="First make every line end CR LF, as signing demands.")
@passphrase_option
@output_option
@as_json
def sign(
    *,
    file: str,
    from_: str | None,
    form: Literal["multipart", "signed-data"],
    is_openpgp: bool,
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
    raw = read_input(file, MAX_ENTITY)
    obj, _ = as_entity(canonical_text(raw) if crlf else raw)
    address = address_of(from_) if from_ else sender_of(obj.entity)
    identity = signing_identity(KeyStore(), address, Passphrase(passphrase_file), is_openpgp=is_openpgp)
    signed = make_signature(obj, identity, when=datetime.now(UTC), form=form)
    if as_json:
        facts = {"from": str(address), "fingerprint": identity.fingerprint, "sha256": signed.fingerprint, "form": form}
        if output is None:
            print_json({**facts, "entity": base64.b64encode(signed.entity).decode("ascii")})
            return
        print_json(facts)
    write(signed.entity, output)


def sender_of(entity: bytes) -> Address:
    """Whom the object's From names; ends with a sentence if that is not one."""
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
@passphrase_option
@output_option
@as_json
def verify(
    *,
    file: str,
    from_: str | None,
    to: str | None,
    at: str | None,
    passphrase_file: Path | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Say what an object proves about its sender, by the keys and the trust of COMITY_HOME.

    What is encrypted for one of your keys is opened first. Who signed with which key is remembered, so that a changed
    key shows. Exit code 0 only for the verdict "valid". With -o the octets that the verdict is about are written.

    \b
    Examples:
      comity verify signed.eml
      comity verify --json - < signed.eml
    """
    store, now = KeyStore(), datetime.now(UTC)
    obj, _ = as_entity(read_input(file, MAX_ENTITY))
    ask = partial(
        judge,
        obj,
        store.trust_store(),
        now=time_of(at),
        expected_from=address_of(from_) if from_ else None,
        expected_to=address_of(to) if to else None,
    )
    verdict = ask()
    if verdict.verdict is VerdictKind.ENCRYPTED:
        verdict = ask(keys=reading_keys(store, Passphrase(passphrase_file), is_strict=False))
    contact = remember(store, verdict, now)
    if output is not None and verdict.content is not None:
        write(verdict.content.entity, output)
    if as_json:
        print_json({**verdict.to_json(), "contact": contact})
    else:
        _show_verdict(verdict, contact)
    if not verdict.is_valid:
        click.get_current_context().exit(NEGATIVE)


def _show_verdict(verdict: Verdict, contact: str) -> None:
    click.echo(f"verdict  {verdict.verdict.value}\nreason   {printable(verdict.reason)}")
    click.echo(f"from     {printable(verdict.from_) or 'nobody'}\nsigner   {printable(verdict.signer) or 'nobody'}")
    if contact:
        click.echo(f"contact  {contact}; fingerprint {verdict.fingerprint[:16]}")
    for layer in verdict.layers:
        click.echo(f"layer    {printable(layer.text)}")
    click.echo(f"sha256   {verdict.sha256}")
