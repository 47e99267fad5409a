"""``comity init``: files, modes, certificates, and a text that a fresh server starts with (design.md section 4)."""

from __future__ import annotations

import re
import subprocess
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from comity.admin.init import init, init_certificates
from comity.admin.template import configuration_text
from comity.config import check, load, read
from comity.config.machine import certificate_names
from comity.config.sections import (
    SECTIONS,
    AcceptConfig,
    ComponentConfig,
    Limits,
    MapConfig,
    PeerConfig,
    ProtectionConfig,
    RouteConfig,
)
from comity.errors import ConfigError


def test_what_init_makes_is_a_good_configuration(tmp_path: Path) -> None:
    made = init(tmp_path / "house", ["example.org", "bücher.example"])
    config = load(tmp_path / "house/comity.toml")
    assert config.server.domains == ("example.org", "xn--bcher-kva.example")
    assert made.files[0] == tmp_path / "house/comity.toml"
    assert timedelta(days=824) < made.expires - datetime.now(UTC) < timedelta(days=826)


def test_every_file_is_the_owners_alone(tmp_path: Path) -> None:
    """reliability.md section 6.1 item 10."""
    made = init(tmp_path / "house", ["example.org"])
    assert {path.stat().st_mode & 0o777 for path in made.files} == {0o600}
    assert (tmp_path / "house/data").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "house/data/tls").stat().st_mode & 0o777 == 0o700


def test_the_certificate_names_domain_services_and_this_machine(tmp_path: Path) -> None:
    """T4: SAN only, DNS and SRVName."""
    init_certificates(tmp_path, ["example.org"])
    server = x509.load_pem_x509_certificates((tmp_path / "tls/server.pem").read_bytes())[0]
    assert certificate_names(server) == ["example.org", "localhost"]
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    others = [name.value for name in names.get_values_for_type(x509.OtherName)]
    assert b"\x16\x18_xmpp-client.example.org" in others
    assert {str(address) for address in names.get_values_for_type(x509.IPAddress)} == {"127.0.0.1", "::1"}
    assert isinstance(server.public_key(), ec.EllipticCurvePublicKey)


def test_openssl_accepts_the_chain(tmp_path: Path) -> None:
    init_certificates(tmp_path, ["example.org"])
    folder = tmp_path / "tls"
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "example.org"]
    done = subprocess.run(
        [*command, "-CAfile", str(folder / "ca.pem"), str(folder / "server.pem")], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    init(tmp_path, ["example.org"])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="already there; nothing was changed"):
        init(tmp_path, ["example.net"])
    (tmp_path / "comity.toml").unlink()
    with pytest.raises(ConfigError, match=r"ca\.pem"):
        init(tmp_path, ["example.net"])
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {**before, **after} == before


@pytest.mark.parametrize(("network", "host"), [("192.168.7.0/24", "0.0.0.0"), ("fd00::/8", "[::]")])
def test_lan_opens_udp_and_tcp_and_names_the_network(tmp_path: Path, network: str, host: str) -> None:
    init(tmp_path, ["example.org"], ip_network(network))
    config = load(tmp_path / "comity.toml")
    assert config.policy.plaintext_from == (ip_network(network),)
    assert [item.url for item in config.sip.listen] == [
        "tls://0.0.0.0:5061",
        f"udp://{host}:5060",
        f"tcp://{host}:5060",
    ]


def test_without_lan_nothing_is_open_in_the_clear(tmp_path: Path) -> None:
    """reliability.md section 6.1 items 1 and 4."""
    init(tmp_path, ["example.org"])
    config = load(tmp_path / "comity.toml")
    plain = [item for item in config.sip.listen if item.transport != "tls"]
    assert {item.host for item in plain} == {"127.0.0.1"}
    assert config.policy.plaintext_from == ()


def test_a_long_domain_still_gets_a_certificate(tmp_path: Path) -> None:
    domain = ".".join(["a" * 60, "b" * 60, "example.org"])
    init(tmp_path, [domain])
    assert check(tmp_path / "comity.toml") == []


class TestTemplate:
    """The text teaches every section and cannot drift from what is read."""

    def test_every_key_stands_in_it(self) -> None:
        text = configuration_text(["example.org"], None)
        for name, kind in SECTIONS.items():
            assert f"[{name}]" in text
            if kind is not Limits:
                for item in fields(kind):
                    assert re.search(rf"^(# )?(\[\[{name}\.)?{item.name}(\]\]| =)", text, re.M), f"{name}.{item.name}"
        for kind in (AcceptConfig, ComponentConfig, MapConfig, PeerConfig, ProtectionConfig, RouteConfig):
            for item in fields(kind):
                assert re.search(rf"^# {item.name.rstrip('_')} =", text, re.M), item.name

    def test_with_every_setting_uncommented_it_is_still_read(self, tmp_path: Path) -> None:
        """An alternative that is shown has to work; of two lines for one key the last stays."""
        lines: list[str] = []
        for line in configuration_text(["example.org"], None).splitlines():
            setting = re.match(r"# (\w+ = |\[)", line)
            text = line.removeprefix("# ") if setting else line
            key = re.match(r"(\w+) = ", text)
            if key:
                header = max(i for i, earlier in enumerate(lines) if earlier.startswith("["))
                lines = [x for i, x in enumerate(lines) if i < header or not x.startswith(f"{key[1]} =")]
            lines.append(text)
        (tmp_path / "comity.toml").write_text("\n".join(lines), encoding="utf-8")
        config = read(tmp_path / "comity.toml")
        assert config.store.engine == "nats"
        assert config.routes[0].domain == "pbx.example.org"
        assert config.xmpp.component[0].port == 5347

    def test_what_it_sets_is_the_default(self, tmp_path: Path) -> None:
        (tmp_path / "full.toml").write_text(configuration_text(["example.org"], None), encoding="utf-8")
        (tmp_path / "alone.toml").write_text('[server]\ndomains = ["example.org"]\n')
        full, alone = read(tmp_path / "full.toml"), read(tmp_path / "alone.toml")
        for name in SECTIONS:
            assert getattr(full, name) == getattr(alone, name), name
