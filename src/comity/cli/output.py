"""How every command speaks: results, JSON, errors as sentences, exit codes.

Place on the path: beside it. Text that came from elsewhere is printed with control characters escaped, so that
no message or peer can write to the terminal (W-12).
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click
import msgspec

from comity.errors import ComityError

GOOD, NEGATIVE, WRONG = 0, 1, 2


class Group(click.Group):
    """A command group whose commands may raise ComityError: it becomes a sentence and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Invoke the command; translate what Comity raises on purpose and what the system refuses."""
        try:
            return super().invoke(ctx)
        except ComityError as error:
            fail(str(error))
        except BrokenPipeError:  # `comity … | head` is no mistake
            sys.stderr.close()
            ctx.exit(GOOD)
        except OSError as error:
            name = f"{error.filename}: " if error.filename else ""
            fail(f"{name}{error.strerror or error}. Look at the path and its permissions.")


def fail(text: str, exit_code: int = WRONG) -> NoReturn:
    """Say ``text`` on stderr, a line for each of its lines, and end with ``exit_code``."""
    for line in text.splitlines():
        click.echo(f"comity: {printable(line)}", err=True)
    click.get_current_context().exit(exit_code)


def printable(text: str) -> str:
    """Escape control and format characters of ``text``, line ends included."""
    return "".join(f"\\u{ord(c):04x}" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in text)


def print_json(value: object) -> None:
    """Print ``value`` as one line of JSON."""
    click.echo(msgspec.json.encode(value).decode("utf-8"))


def print_table(titles: Sequence[str], rows: Sequence[Sequence[object]], empty: str) -> None:
    """Print ``rows`` in columns below ``titles``, or the sentence ``empty``."""
    if not rows:
        click.echo(empty)
        return
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(titles), *cells]) for i in range(len(titles))]
    for row in [list(titles), *cells]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def read_input(name: str, limit: int) -> bytes:
    """Octets of a file, or of standard input for ``-``; more than ``limit`` is refused."""
    if name == "-":
        octets = sys.stdin.buffer.read(limit + 1)
    else:
        with Path(name).open("rb") as file:
            octets = file.read(limit + 1)
    if len(octets) > limit:
        fail(f"{name} is larger than {limit} octets. Message objects are small; is this the right file?")
    return octets


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
config_option = click.option(
    "-c",
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    default=Path("comity.toml"),
    show_default=True,
    help="The configuration file.",
)
