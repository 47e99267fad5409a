"""``comity demo``.

Place on the path: beside it. Shows the story of ``comity.demo`` as a table, or as JSON, and cleans up after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import tempfile
from pathlib import Path

import click

from comity.cli.output import NEGATIVE, as_json, fail, print_json, printable
from comity.demo.stage import Failed, Stage
from comity.demo.story import Step, play, settings, stop

INDENT = "      "


@click.command()
@click.option("--once", is_flag=True, help="End after the story instead of staying up.")
@as_json
def demo(*, once: bool, as_json: bool) -> None:
    """Watch signed and encrypted messages cross between SIP, XMPP and APEX, on this machine, in well under a minute.

    Everything is a process of its own on real sockets of loopback, in a directory that is removed at the end. Then it
    stays up and prints the settings for your own SIP and XMPP client, until Ctrl-C.
    Exit code 0: every step held; 1: one did not.

    \b
    Examples:
      comity demo
      comity demo --once --json
    """
    steps: list[Step] = []
    try:
        asyncio.run(_play(steps, once=once, is_silent=as_json))
    except Failed as failed:
        fail(str(failed), NEGATIVE)
    except (KeyboardInterrupt, asyncio.CancelledError):
        click.echo("comity: the demo was ended early; everything was removed", err=True)
        click.get_current_context().exit(NEGATIVE)
    if as_json:
        print_json(steps)
    if not all(step.ok for step in steps):
        click.get_current_context().exit(NEGATIVE)


async def _play(steps: list[Step], *, once: bool, is_silent: bool) -> None:
    """Play the story into ``steps``; raises CancelledError if a signal ends it before its end."""

    def tell(step: Step) -> None:
        steps.append(step)
        if not is_silent:
            _show(len(steps), step)

    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    with tempfile.TemporaryDirectory(prefix="comity-demo-") as folder:
        async with Stage(Path(folder)) as stage:
            await play(stage, tell)
            if not once and stage.servers:
                click.echo(f"\n{settings(stage)}", err=is_silent)
                with contextlib.suppress(asyncio.CancelledError):  # Ctrl-C is how this ends
                    await asyncio.Event().wait()
            tell(await stop(stage))


def _show(number: int, step: Step) -> None:
    """One row: number, outcome, what it was; below it what happened."""
    mark = click.style("ok    ", fg="green") if step.ok else click.style("FAILED", fg="red", bold=True)
    click.echo(f"{number:>3}  {mark}  {step.step}")
    for line in step.detail.split("; "):
        click.echo(f"{INDENT}       {printable(line)}")
