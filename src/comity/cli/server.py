"""``comity init``, ``comity serve`` and ``comity config check``.

Place on the path: before it. ``serve`` only connects the process (signals, the ready line, the pid file, exit
codes) with ``comity.server.Server``, which decides nothing about processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import logging
import os
import resource
import signal
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Protocol

import click

from comity.admin.init import init as make
from comity.admin.init import init_certificates
from comity.cli import logs
from comity.cli.output import WRONG, Group, as_json, config_option, print_json
from comity.config import Config, check, load, read, warnings_about
from comity.config.values import domain_problem
from comity.errors import ComityError

logger = logging.getLogger(__name__)

REPORT_SECONDS = 5.0
OWN_DESCRIPTORS = 256
"""Files a server needs besides its connections: listeners, store, event loop, workers, questions to DNS."""
COLLECTOR = (5_000, 5, 20)
"""Thresholds of the three generations (Python's own: 700, 10, 10)."""


# --- init -----------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--domain", "domains", multiple=True, metavar="DOMAIN", help="A domain to serve; may be repeated.")
@click.option("--lan", metavar="NETWORK", help="Let phones of this network sign in without TLS (192.168.1.0/24).")
@click.option("--certificates", is_flag=True, help="Make only the certificates that DIRECTORY/comity.toml lacks.")
@as_json
def init(directory: Path, domains: tuple[str, ...], lan: str | None, certificates: bool, as_json: bool) -> None:
    """Make DIRECTORY with a commented comity.toml, a local certificate authority and a certificate.

    Nothing that exists is overwritten.

    \b
    Examples:
      comity init house --domain example.org
      comity init house --domain example.org --domain example.net --lan 192.168.1.0/24
    """
    configuration = directory / "comity.toml"
    if certificates:
        config = read(configuration)
        made = init_certificates(config.server.data, domains or config.server.domains)
        if made.files[2] != config.tls.certificate:
            click.echo(f"comity: [tls] names {config.tls.certificate}; change it to {made.files[2]}.", err=True)
    else:
        network = _network(lan) if lan else None
        for domain in domains:
            _must_be_domain(domain)
        if not domains:
            raise click.UsageError("Which domain? Give at least one: --domain example.org")
        made = make(directory, domains, network)
    if as_json:
        print_json({"files": [str(path) for path in made.files], "expires": made.expires})
        return
    for path in made.files:
        click.echo(f"made {path}")
    if not certificates:
        click.echo(_next_steps(directory, domains[0], made.files[1], network))


def _next_steps(directory: Path, domain: str, authority: Path, lan: IPv4Network | IPv6Network | None) -> str:
    option = f"-c {directory / 'comity.toml'}"
    phones = f"from {lan} and " if lan else ""
    return (
        f"\nNext:\n"
        f"  comity config check {option}\n"
        f"  comity account add alice@{domain} {option}\n"
        f"  comity serve {option}\n"
        f"\nClients have to trust {authority} until you have a certificate of a public authority.\n"
        f"Unencrypted SIP is taken {phones}from this machine only; everything else is under TLS."
    )


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}. Write it like 192.168.1.0/24.", param_hint="--lan") from error
    if network.prefixlen == 0:
        raise click.BadParameter(f"{text} is the whole Internet. Name your own network.", param_hint="--lan")
    return network


def _must_be_domain(text: str) -> None:
    problem = domain_problem(text)
    if problem:
        raise click.BadParameter(f'"{text}" {problem}', param_hint="--domain")


# --- config ---------------------------------------------------------------------------------------------------------


@click.group(cls=Group)
def config() -> None:
    """Look after the configuration file."""


@config.command("check")
@config_option
@as_json
def config_check(config_path: Path, as_json: bool) -> None:
    """Say every mistake in the configuration, with its cause and its cure.

    Looks at the file, the certificates and the data directory; changes nothing.
    Exit code 0: a server can start with it; 2: there are mistakes.

    \b
    Example:
      comity config check -c house/comity.toml
    """
    mistakes = check(config_path)
    warnings = [] if mistakes else warnings_about(read(config_path))
    if as_json:
        print_json([{"key": m.key, "problem": m.problem, "cure": m.cure, "where": m.where} for m in mistakes])
    elif not mistakes:
        click.echo(f"{config_path} is good.")
        for warning in warnings:
            click.echo(f"warning: {warning}", err=True)
    if mistakes:
        if not as_json:
            click.echo("\n".join(str(mistake) for mistake in mistakes), err=True)
        click.get_current_context().exit(WRONG)


# --- serve ----------------------------------------------------------------------------------------------------------


class RunningServer(Protocol):
    """What ``comity.server.Server`` offers the process."""

    @property
    def addresses(self) -> Sequence[str]:
        """Addresses really listened on, as URLs."""

    async def start(self) -> None:
        """Open the store, start the bindings, open the listeners."""

    async def reload(self, config: Config) -> None:
        """Take over what may change while running: certificates, accounts' domains, limits, policy."""

    async def stop(self) -> None:
        """Drain and stop."""


@click.command()
@config_option
@click.option("--pidfile", type=click.Path(path_type=Path), help="Write the process ID here while running.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="What is written to stderr.",
)
@as_json
def serve(config_path: Path, pidfile: Path | None, log_level: str, as_json: bool) -> None:
    """Run the server until SIGTERM, which drains and stops it; SIGHUP reads the configuration anew.

    When it is ready, it prints one line: "comity: ready" and its addresses.

    \b
    Example:
      comity serve -c house/comity.toml --pidfile /run/comity.pid
    """
    collapser = logs.set_up(log_level)
    os.umask(0o077)
    # No core dump: it would hold keys and message bodies (B-02).
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    config = load(config_path)
    _raise_descriptor_limit(config.limits.connections)
    # Imported here, because every other command starts faster without it.
    factory = importlib.import_module("comity.server").Server

    def ready(addresses: Sequence[str]) -> None:
        if as_json:
            print_json({"ready": list(addresses)})
        else:
            click.echo(" ".join(["comity: ready", *addresses]))

    try:
        asyncio.run(run(lambda: factory(config), config_path, pidfile, ready, collapser.report))
    finally:
        collapser.report(is_last=True)


def _raise_descriptor_limit(connections: int) -> None:
    """Let the process open as many files as it may; say so if that is too few for its connections (F-09)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    needed = connections + OWN_DESCRIPTORS
    if hard != resource.RLIM_INFINITY and hard < connections:
        logger.warning(
            "This process may open %d files, but [limits] connections = %d needs %d: further connections will have to "
            "wait. Raise the limit (systemd: LimitNOFILE=%d; shell: ulimit -Hn %d) or lower connections.",
            *(hard, connections, needed, needed, needed),
        )


async def run(
    factory: Callable[[], RunningServer],
    config_path: Path,
    pidfile: Path | None,
    ready: Callable[[Sequence[str]], None],
    report: Callable[[], None],
) -> None:
    """Start a server, say that it is ready, obey signals, stop; call ``report`` every few seconds meanwhile.

    Raises:
        ConfigError: with the reason why it cannot start; StoreError likewise.
    """
    stopping = asyncio.Event()
    reloading = asyncio.Event()
    loop = asyncio.get_running_loop()
    server = factory()
    # Before start: a signal in the middle of it must stop in order, not kill.
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, reloading.set)
    reporting = loop.create_task(_every(REPORT_SECONDS, report))
    try:
        await server.start()
        _tune_collector()
        with _pidfile(pidfile):
            ready(server.addresses)
            while not stopping.is_set():
                await _first_of(stopping, reloading)
                if reloading.is_set() and not stopping.is_set():
                    reloading.clear()
                    await _reload(server, config_path)
            # A second signal while draining ends the process at once.
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
            _say("comity: draining")
            await server.stop()
    finally:
        reporting.cancel()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)


def _tune_collector() -> None:
    """Let the cycle collector look seldom: a message's objects form no cycles and are freed when it has left.

    With Python's own figures it took 8 % of the CPU of SIP to XMPP at 2,000 messages a second, and a full look at the
    transactions kept for 32 s stopped everything for 100 ms, twice in three seconds."""
    gc.collect()
    gc.freeze()  # what the start made stays for good
    gc.set_threshold(*COLLECTOR)


async def _reload(server: RunningServer, config_path: Path) -> None:
    """Reload, or keep what runs and say why (F-K20)."""
    try:
        await server.reload(load(config_path))
        logger.info("reloaded", extra={"is_asked": True})
    except ComityError as error:
        why = "; ".join(str(error).splitlines())
        logger.error("not reloaded, what was in use stays in use: %s", why, extra={"is_asked": True})


async def _every(seconds: float, act: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        act()


def _say(text: str) -> None:
    """Tell the operator; a log that cannot be written (its disk is full, F-04) must stop nothing."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True)


async def _first_of(*events: asyncio.Event) -> None:
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def _pidfile(path: Path | None) -> Iterator[None]:
    if path is None:
        yield
        return
    path.write_text(f"{os.getpid()}\n", encoding="ascii")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
