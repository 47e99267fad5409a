"""Arguments and options that several commands take: addresses, files, where the result goes.

Place on the path: beside it. What a person types becomes a typed value here, or a sentence that says how to write it.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from comity.cli.output import fail
from comity.cpim.address import Address
from comity.errors import AddressError

file_argument = click.argument("file", metavar="FILE|-")
output_option = click.option("-o", "--output", type=click.Path(path_type=Path), help="Write here, not to stdout.")


def address_of(text: str) -> Address:
    """An address given on the command line: ``alice@example.org``, or with any of our schemes."""
    try:
        return Address.from_any(text if ":" in text.partition("@")[0] else f"im:{text}")
    except AddressError as error:
        fail(f"{error}. Write it as im:alice@example.org.")


def time_of(text: str | None) -> datetime:
    """A time given on the command line, as aware UTC; now if none was."""
    if text is None:
        return datetime.now(UTC)
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}. Write it as 2026-01-31T12:00:00Z.", param_hint="--at") from error
    if when.tzinfo is None:
        raise click.BadParameter("The time zone is missing. Write it as 2026-01-31T12:00:00Z.", param_hint="--at")
    return when.astimezone(UTC)


def write(octets: bytes, output: Path | None) -> None:
    """Write a result to a file, or to standard output."""
    if output is None:
        sys.stdout.buffer.write(octets)
        sys.stdout.buffer.flush()
    else:
        output.write_bytes(octets)


def write_private(octets: bytes, output: Path) -> None:
    """Write a secret to a new file that only its owner can read; an existing file is left alone."""
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(octets)
