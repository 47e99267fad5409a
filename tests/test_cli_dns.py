"""``comity dns``: the records others find us by, as a zone file and as JSON, and held against a DNS server on loopback (ADDR-13)."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.zone
import pytest
from click.testing import CliRunner, Result

from comity.cli import main
from comity.testing.dns import DnsServer
from tests.paths.kit import ServerProcess


def comity(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A server for two domains that others can reach by every protocol, with nothing started."""
    config = tmp_path / "comity.toml"
    config.write_text(
        'server.domains = ["example.org", "bücher.example"]\n'
        '[sip]\nlisten = ["tls://0.0.0.0:5061", "udp://127.0.0.1:5060", "tcp://0.0.0.0:5070"]\n'
        '[xmpp]\nclient = ["tcp://0.0.0.0:5222", "tls://0.0.0.0:5223"]\nserver = ["tcp://0.0.0.0:5269", "tls://0.0.0.0:5270"]\n'
        '[apex]\nlisten = ["tcp://0.0.0.0:912"]\n[policy]\nplaintext_from = ["192.168.1.0/24"]\n',
        encoding="utf-8",
    )
    return config


class TestRecords:
    def test_each_protocol_and_domain_has_a_record_of_its_own(self, house: Path) -> None:
        """ADDR-13: RFC 3861's labels once for each, and what each protocol looks for by itself."""
        for domain, label in (("example.org", "example.org"), ("bücher.example", "xn--bcher-kva.example")):
            result = comity("dns", domain, "--json", "-c", house)
            assert result.exit_code == 0, result.output
            found = [(record["name"], record["kind"]) for record in json.loads(result.output)]
            assert len(found) == len(set(found))
            srv = {name.removesuffix(f".{label}.") for name, kind in found if kind == "SRV"}
            assert srv == {
                *(f"{service}._{protocol}" for service in ("_im", "_pres") for protocol in ("sip", "xmpp", "apex")),
                *("_sips._tcp", "_sip._tcp", "_xmpp-server._tcp", "_xmpps-server._tcp"),
                *("_xmpp-client._tcp", "_xmpps-client._tcp", "_apex-mesh._tcp", "_apex-edge._tcp"),
            }, "nothing for what listens on loopback only"
            assert (f"{label}.", "NAPTR") in found

    def test_what_it_prints_is_a_zone_file(self, house: Path) -> None:
        result = comity("dns", "example.org", "--host", "im.example.org", "--address", "192.0.2.7", "-c", house)
        assert result.exit_code == 0, result.output
        text = "@ 60 IN SOA ns admin 1 1 1 1 1\n@ 60 IN NS ns\nns 60 IN A 192.0.2.1\n" + result.output
        zone = dns.zone.from_text(text, "example.org.")
        [secure] = zone.find_rdataset("_sips._tcp", "SRV")
        assert secure.to_text() == "0 0 5061 im"
        assert zone.find_rdataset("im", "A").to_text().endswith("A 192.0.2.7")
        [starttls], [direct] = (zone.find_rdataset(f"{name}-server._tcp", "SRV") for name in ("_xmpp", "_xmpps"))
        assert starttls.priority > direct.priority, "direct TLS is tried first (XEP-0368)"

    def test_without_an_address_it_says_that_one_is_needed(self, house: Path) -> None:
        assert "needs an A or AAAA record" in comity("dns", "example.org", "-c", house).output

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("other.example",), "not a domain of this server"),
            (("192.0.2.1",), "is an IP address"),
            (("example.org", "--address", "here"), "Write it as 192.0.2.7"),
            (("example.org", "--host", "a b"), "is not a domain"),
        ],
    )
    def test_wrong_use_is_said(self, house: Path, arguments: tuple[str, ...], words: str) -> None:
        result = comity("dns", *arguments, "-c", house)
        assert result.exit_code == 2
        assert words in result.output


class Checked:
    """A running server, and a DNS server whose records are changed by the test."""

    def __init__(self, server: ServerProcess, dns: DnsServer) -> None:
        self.server = server
        self.dns = dns

    def records(self) -> list[dict[str, Any]]:
        text = self.server.run("dns", "a.test", "--json", "-c", str(self.server.config))
        found = json.loads(text)
        assert isinstance(found, list)
        return found

    def serve(self, records: list[dict[str, Any]]) -> None:
        self.dns.load("\n".join(f"{r['name']} 300 IN {r['kind']} {r['data']}" for r in records))

    async def check(self, *arguments: str) -> tuple[int, str]:
        """Exit code and what is said; the DNS server answers meanwhile."""
        command = [sys.executable, "-m", "comity", "dns", *arguments, "--check", "-c", str(self.server.config)]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        said, _ = await process.communicate()
        return process.returncode or 0, said.decode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("dns"), people=()) as process:
        config = process.config.read_text("utf-8")
        process.config.write_text(config + f'[tls]\ntrust = "{process.authority}"\n', encoding="utf-8")
        process.start()
        process.config.write_text(
            process.config.read_text("utf-8")
            + '[federation]\nnetworks = ["127.0.0.0/8"]\nnameservers = ["127.0.0.1:1"]\n',
            encoding="utf-8",
        )
        yield process


def test_records_are_held_against_dns_and_servers_are_called(server: ServerProcess) -> None:
    """Present, missing, different; reached, not reached; exit codes; another's domain."""

    async def story() -> None:
        async with DnsServer("") as names:
            text = server.config.read_text("utf-8").partition("nameservers")[0]
            server.config.write_text(f'{text}nameservers = ["127.0.0.1:{names.address[1]}"]\n', encoding="utf-8")
            checked = Checked(server, names)
            records = checked.records()
            checked.serve(records)
            code, said = await checked.check("a.test")
            assert code == 0, said
            assert said.count("present: ") == len(records)
            secure = server.port("sip", "tls")[1]
            assert f"reached: tls://127.0.0.1:{secure}" in said, "its certificate was verified"
            assert "missing" not in said

            wrong = [dict(r) for r in records if r["name"] != "_xmpp-server._tcp.a.test."]
            [mesh] = [r for r in wrong if r["name"] == "_apex-mesh._tcp.a.test."]
            mesh["data"] = "0 0 9 nowhere.test."
            checked.serve(wrong)
            code, said = await checked.check("a.test")
            assert code == 1
            assert "missing: _xmpp-server._tcp.a.test." in said
            assert "different: _apex-mesh._tcp.a.test." in said
            assert "DNS says 0 0 9 nowhere.test." in said
            assert "Add it to the zone." in said

            code, said = await checked.check("a.test", "--json")
            assert code == 1
            assert {row["state"] for row in json.loads(said)} >= {"present", "missing", "different", "reached"}

            checked.serve([r for r in records if "NAPTR" not in r["kind"]])
            code, said = await checked.check("a.test")
            assert code == 0, "what is only useful is no reason"
            assert "missing (useful, not needed): a.test." in said

            names.load(
                f"_sips._tcp.b.test. 300 IN SRV 0 0 {secure} host.b.test.\nhost.b.test. 300 IN A 127.0.0.1\n"
                f"_xmpp-server._tcp.c.test. 300 IN SRV 0 0 {server.port('server', 'tcp')[1]} host.b.test."
            )
            code, said = await checked.check("b.test")
            assert code == 1
            assert "has no certificate for b.test" in said
            code, said = await checked.check("c.test")
            assert code == 0
            assert "reached: xmpp: tcp://127.0.0.1" in said
            code, said = await checked.check("missing.test")
            assert code == 1
            assert "does not exist" in said

    asyncio.run(story())
