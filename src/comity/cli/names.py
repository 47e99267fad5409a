"""``comity dns``: the records to publish for a domain, and whether they are there.

Place on the path: beside it. ``admin/published.py`` says what should be in DNS, ``admin/lookup.py`` what is.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from pathlib import Path

import click

from comity.admin.lookup import Finding, Lookup
from comity.admin.published import Published, records
from comity.cli.output import NEGATIVE, as_json, config_option, fail, print_json, printable
from comity.config import Config, read
from comity.config.values import canonical_domain, domain_problem


@click.command()
@click.argument("domain")
@click.option("--host", default="", metavar="NAME", help="This machine's name in DNS; without it DOMAIN itself.")
@click.option("--address", "addresses", multiple=True, metavar="IP", help="Its address; may be repeated.")
@click.option("--check", is_flag=True, help="Ask DNS, and call the servers that it names.")
@config_option
@as_json
def dns(*, domain: str, host: str, addresses: tuple[str, ...], check: bool, config_path: Path, as_json: bool) -> None:
    """Print the DNS records by which others find DOMAIN, or check them.

    DOMAIN is one of [server] domains. The lines go into its zone file as they are, or into the form of whoever runs your DNS:
    name, kind and value. Each protocol has records of its own, which name this machine and the port it listens on; a listener
    on 127.0.0.1 has none, because nobody else could reach it. Other servers also need a certificate that names DOMAIN.

    --check asks DNS for each record and says whether it is present, missing or different, and what to do. Then it calls every
    server that the records name, and verifies its certificate where TLS begins with the first octet. With --check, DOMAIN may be
    one of somebody else: then it says by which protocols and servers this server would reach it.

    Exit code 0: everything is there and answers; 1: something is missing, different or does not answer; 2: wrong use, or mistakes
    in the configuration. Records marked "useful" are no reason for 1.

    \b
    Examples:
      comity dns example.org -c house/comity.toml
      comity dns example.org --host im.example.org --address 192.0.2.7 >> example.org.zone
      comity dns example.org --host im.example.org --check
      comity dns example.net --check
    """
    if problem := domain_problem(domain):
        raise click.BadParameter(f'"{domain}" {problem}', param_hint="DOMAIN")
    if host and (problem := domain_problem(host)):
        raise click.BadParameter(f'"{host}" {problem}', param_hint="--host")
    for address in addresses:
        _must_be_address(address)
    config, name = read(config_path), canonical_domain(domain)
    is_ours = name in config.server.domains
    if not is_ours and not check:
        ours = ", ".join(config.server.domains)
        fail(f"{name} is not a domain of this server ({ours}). With --check it says how that domain would be reached.")
    wanted = records(config, name, canonical_domain(host) if host else "", addresses) if is_ours else []
    if is_ours and not any(record.kind == "SRV" for record in wanted):
        fail(f"{config_path}: nothing is listened on that others could reach. Look at [sip], [xmpp] and [apex].")
    if check:
        _check(config, name, wanted, is_ours, as_json)
    elif as_json:
        print_json([_as_dict(record) for record in wanted])
    else:
        _print_zone(name, host or name, wanted)


def _must_be_address(text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}. Write it as 192.0.2.7.", param_hint="--address") from error


def _print_zone(domain: str, host: str, wanted: Sequence[Published]) -> None:
    width = max(len(record.text) for record in wanted)
    click.echo(f"; The records of {domain}; what stands behind the semicolon is for people.")
    for record in wanted:
        purpose = record.purpose + ("" if record.is_needed else " (useful, not needed)")
        click.echo(f"{record.text.ljust(width)} ; {purpose}")
    if not any(record.kind in ("A", "AAAA") for record in wanted):
        click.echo(f"; {host} needs an A or AAAA record, too: --address prints it.")


def _as_dict(record: Published) -> dict[str, object]:
    return {
        "name": f"{record.name}.",
        "kind": record.kind,
        "data": record.data,
        "protocol": record.protocol,
        "purpose": record.purpose,
        "needed": record.is_needed,
    }


def _check(config: Config, domain: str, wanted: Sequence[Published], is_ours: bool, as_json: bool) -> None:
    async def ask() -> list[Finding]:
        lookup = Lookup(config)
        return await (lookup.check(domain, wanted) if is_ours else lookup.reach(domain))

    findings = asyncio.run(ask())
    if as_json:
        print_json(
            [
                {"about": f.about, "state": f.state, "detail": f.detail, "cure": f.cure, "needed": f.is_needed}
                for f in findings
            ]
        )
    else:
        for finding in findings:
            state = finding.state if finding.is_good or finding.is_needed else f"{finding.state} (useful, not needed)"
            detail = f" ({finding.detail})" if finding.detail else ""
            click.echo(printable(f"{state}: {finding.about}{detail}"))
            if finding.cure:
                click.echo(printable(f"  {finding.cure}"))
    if not _is_well(findings, is_ours):
        click.get_current_context().exit(NEGATIVE)


def _is_well(findings: Sequence[Finding], is_ours: bool) -> bool:
    """Ours: everything that is needed is there and answers. Another's: one of its servers does."""
    if is_ours:
        return all(finding.is_good for finding in findings if finding.is_needed)
    return any(finding.is_good for finding in findings)
