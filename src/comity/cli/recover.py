"""``comity recover``: what can be saved of a damaged store.

Place on the path: beside it. ``store/salvage.py`` does the work; this says what came of it and what to do next.
"""

from __future__ import annotations

from pathlib import Path

import click

from comity.admin.engine import recover as save
from comity.cli.output import NEGATIVE, as_json, config_option, print_json, printable
from comity.config import read


@click.command()
@click.option("--to", "target", type=click.Path(path_type=Path), required=True, help="A new directory for the result.")
@config_option
@as_json
def recover(target: Path, config_path: Path, as_json: bool) -> None:
    """Save what a damaged store still holds into a new store; the damaged one is not changed.

    For a server that does not start because its database fails its checks. Messages are saved whose octets match
    their SHA-256. Exit code 0: everything that was found is in the new store; 1: something is missing, and is named.

    \b
    Example:
      comity recover --to house/saved -c house/comity.toml
    """
    config = read(config_path)
    found = save(config, target)
    if as_json:
        print_json(
            {
                "to": str(target),
                "finding": found.finding,
                "complete": found.is_complete,
                "waiting": found.waiting,
                "ended": found.ended,
                "damaged": found.damaged,
                "marks": found.marks,
                "notes": found.notes,
                **found.values,
            }
        )
    else:
        click.echo(f"finding: {printable(found.finding) or 'none, the store can be opened as it is'}")
        click.echo(f"saved: {found.waiting} waiting messages, records of {found.ended} that had ended")
        click.echo("saved: " + ", ".join(f"{count} of {space}" for space, count in found.values.items()))
        for line in found.damaged:
            click.echo(f"not saved, its octets are damaged: {printable(line)}")
        for line in found.notes:
            click.echo(f"read in part: {printable(line)}")
        click.echo(_next(config.server.data, target))
    if not found.is_complete:
        click.get_current_context().exit(NEGATIVE)


def _next(data: Path, target: Path) -> str:
    return (
        f"\nNext: compare this with your newest backup. To go on with what was saved:\n"
        f"  mkdir {data}/damaged && mv {data}/comity.db* {data}/damaged/\n"
        f"  mv {target}/comity.db {data}/\n"
        f"Keep {data}/damaged until nobody misses anything."
    )
