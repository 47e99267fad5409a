"""comity.toml: every mistake is a sentence that names the key, the problem and the cure (design.md section 4)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from comity.admin.init import init_certificates
from comity.config import Config, PeerConfig, check, load, read, warnings_about
from comity.config.machine import covers, file_system_of
from comity.config.sections import SECTIONS, ComponentConfig
from comity.errors import ConfigError, ConfigErrors

SECRET = '\nsecret = "s3cret"'
MINIMAL = '[server]\ndomains = ["example.org"]\n'


@pytest.fixture
def ready(tmp_path: Path) -> Path:
    """A directory in which a domain alone is a good configuration."""
    init_certificates(tmp_path / "data", ["example.org"])
    (tmp_path / "comity.toml").write_text(MINIMAL)
    return tmp_path


def mistakes_of(path: Path, text: str) -> list[ConfigError]:
    path.write_text(text)
    try:
        read(path)
    except ConfigErrors as errors:
        return list(errors.mistakes)
    return []


class TestDefaults:
    def test_a_domain_alone_is_a_valid_file(self, ready: Path) -> None:
        config = load(ready / "comity.toml")
        assert config.server.domains == ("example.org",)
        assert config.server.data == ready / "data"
        assert config.tls.certificate == ready / "data/tls/server.pem"
        assert [item.url for item in config.sip.listen] == [
            "tls://0.0.0.0:5061",
            "udp://127.0.0.1:5060",
            "tcp://127.0.0.1:5060",
        ]
        assert [item.url for item in config.xmpp.client] == ["tcp://0.0.0.0:5222", "tls://0.0.0.0:5223"]
        assert {item.role for item in config.xmpp.client} == {"client"}
        assert config.policy.plaintext_from == ()
        assert config.store.engine == "sqlite"
        assert config.control_socket == ready / "data/control.sock"

    def test_limits_have_the_defaults_of_reliability_6_2(self, ready: Path) -> None:
        limits = load(ready / "comity.toml").limits
        assert (limits.pre_auth_stanza, limits.pre_auth_elements, limits.pre_auth_time) == (8192, 32, 30.0)
        assert (limits.client_stanza, limits.server_stanza, limits.xml_depth) == (262144, 524288, 64)
        assert (limits.sip_message_tcp, limits.sip_message_udp, limits.sip_uri) == (65536, 16384, 256)
        assert (limits.cpim_message, limits.cpim_message_sip) == (131072, 49152)
        assert (limits.failures_per_connection, limits.failures_per_address, limits.ban) == (5, 20, 3600.0)
        assert (limits.stored_messages, limits.stored_octets) == (1000, 64 * 1024 * 1024)
        assert limits.message_lifetime == limits.dedup_window == 72 * 3600.0
        assert (limits.hops_sip, limits.hops, limits.max_breadth) == (70, 128, 60)

    def test_every_key_can_be_written(self, tmp_path: Path) -> None:
        text = """
            [server]
            domains = ["Example.ORG", "bücher.example"]
            data = "var"
            [tls]
            certificate = "c.pem"
            key = "/etc/k.pem"
            trust = "t.pem"
            [sip]
            listen = ["udp://10.0.0.1", "tls://[::]:5061", "tcp://localhost:0"]
            [xmpp]
            client = []
            server = ["tcp://0.0.0.0"]
            component_listen = ["tcp://127.0.0.1"]
            [[xmpp.component]]
            domain = "sip.example.org"
            secret = "s"
            serves = ["example.net"]
            [[xmpp.component]]
            domain = "two.example.org"
            host = "xmpp.example.org"
            port = 5348
            tls = true
            secret = "t"
            serves = ["example.com", "*"]
            [[xmpp.accept]]
            domain = "IRC.example.org"
            secret = "u"
            [apex]
            listen = ["tcp://127.0.0.1"]
            [web]
            listen = ["http://127.0.0.1:8081"]
            [xcap]
            listen = ["https://127.0.0.1:8444"]
            [[route]]
            domain = "*"
            via = "sip"
            next_hop = "udp://10.0.0.9:5060"
            transit = ["*"]
            [[route]]
            domain = "apex.example"
            via = "apex"
            [[peer]]
            name = "sip.example.net"
            address = ["10.0.0.2", "10.1.0.0/16"]
            speaks_for = ["BÜCHER.example.net", "*"]
            [[route]]
            domain = "sip.example.org"
            next_hop = ["tls://a", "udp://b:5070"]
            as = "example.org"
            user = "comity"
            password_file = "trunk.password"
            realm = "The PBX"
            register = ["1001@example.org", "im:o'malley@example.org"]
            keep_alive = "off"
            [[map]]
            address = "example.org"
            on = "sip.example.org"
            is = "xmpp.example.org"
            [[map]]
            address = "Alice@example.org"
            on = "sip.example.org"
            is = "1001@example.org"
            [[peer]]
            name = "two.example.net"
            asserted_identity = true
            [store]
            engine = "nats"
            url = "tls://a:4222, tls://b:4222"
            [policy]
            plaintext_from = ["10.0.0.0/8", "fd00::/8"]
            sip_md5 = false
            scram_sha1 = false
            presence_default = "deny"
            [limits]
            cpim_message = "64 KiB"
            message_lifetime = "2 h"
            hops = 100
        """
        path = tmp_path / "comity.toml"
        path.write_text(text, encoding="utf-8")
        config = read(path)
        assert config.server.domains == ("example.org", "xn--bcher-kva.example")
        assert config.server.data == tmp_path / "var"
        assert str(config.tls.key) == "/etc/k.pem"
        assert [item.url for item in config.sip.listen] == [
            "udp://10.0.0.1:5060",
            "tls://[::]:5061",
            "tcp://127.0.0.1:0",
        ]
        assert config.xmpp.client == ()
        assert [(c.host, c.port) for c in config.xmpp.component] == [("127.0.0.1", 5347), ("xmpp.example.org", 5348)]
        assert [c.served for c in config.xmpp.component] == [("example.net",), ("example.com", "*")]
        assert ComponentConfig("sip.example.org").served == ("example.org",)
        assert [(a.domain, a.secret) for a in config.xmpp.accept] == [("irc.example.org", "u")]
        assert [item.url for item in config.xmpp.component_listen] == ["tcp://127.0.0.1:5347"]
        assert config.policy.plaintext_from == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
        assert [(route.domain, route.next_hop, route.transit) for route in config.routes] == [
            ("*", "udp://10.0.0.9:5060", ("*",)),
            ("apex.example", "", ()),
            ("sip.example.org", "tls://a udp://b:5070", ()),
        ]
        trunk = config.routes[2]
        assert (trunk.as_, trunk.user, trunk.realm, trunk.keep_alive) == ("example.org", "comity", "The PBX", 0.0)
        assert trunk.password_file == tmp_path / "trunk.password"
        assert [str(address) for address in trunk.register] == ["im:1001@example.org", "im:o'malley@example.org"]
        assert [(str(rule.address), rule.on, str(rule.is_)) for rule in config.maps] == [
            ("example.org", "sip.example.org", "xmpp.example.org"),
            ("im:Alice@example.org", "sip.example.org", "im:1001@example.org"),
        ]
        assert config.peers[0] == PeerConfig(
            "sip.example.net",
            (ip_network("10.0.0.2"), ip_network("10.1.0.0/16")),
            ("xn--bcher-kva.example.net", "*"),
        )
        assert config.peers[1] == PeerConfig("two.example.net", asserted_identity=True)
        assert (config.limits.cpim_message, config.limits.message_lifetime) == (65536, 7200.0)
        assert "secret" not in repr(config.xmpp)

    def test_the_certificate_is_looked_for_in_the_data_directory_that_was_named(self, tmp_path: Path) -> None:
        path = tmp_path / "comity.toml"
        path.write_text(MINIMAL + 'data = "/srv/comity"\n')
        assert read(path).tls.key == Path("/srv/comity/tls/server.key")

    def test_every_key_is_explained(self) -> None:
        """A section's docstring names what it is for; each of its kinds has a reader."""
        for kind in SECTIONS.values():
            assert kind.__doc__
            for item in fields(kind):
                assert item.metadata.get("kind") or item.name in ("component", "accept", "protection"), item.name


#: (text, key that must be named, words of the cure or problem); the text is written below MINIMAL.
MISTAKES = [
    ('domain = "example.org"', "server.domain", 'Did you mean "domains"?'),
    ("data = 5", "server.data", "Write it in quotes"),
    ('[srever]\nx = "y"', "srever", 'Did you mean "server"?'),
    ("[nonsense]", "nonsense", "There is: apex"),
    ('sip = "udp://127.0.0.1"', "server.sip", "There is: data, domains"),
    ('[tls]\ncert = "x"', "tls.cert", "There is:"),
    ('[tls]\nlisten = ["x"]', "tls.listen", "It belongs below [sip]"),
    ("[tls]\ncertificate = true", "tls.certificate", "Write it in quotes"),
    ('[sip]\nlisten = "udp://127.0.0.1"', "sip.listen", 'Write a list: ["udp://127.0.0.1:5060"]'),
    ('[sip]\nlisten = ["127.0.0.1:5060"]', "sip.listen[0]", 'Write it as "udp://127.0.0.1:5060"'),
    ('[sip]\nlisten = ["udp://127.0.0.1:5060", 5061]', "sip.listen[1]", "Write it as"),
    ('[sip]\nlisten = ["udp://127.0.0.1:70000"]', "sip.listen[0]", "Ports are 1 to 65535"),
    ('[sip]\nlisten = ["udp://127.0.0.1:-1"]', "sip.listen[0]", "Write it as"),
    ('[sip]\nlisten = ["ws://127.0.0.1:5060"]', "sip.listen[0]", "Use udp:// or tcp:// or tls://"),
    ('[sip]\nlisten = ["tls://sip.example.org:5061"]', "sip.listen[0]", "Write an IP address"),
    ('[sip]\nlisten = ["tls://0.0.0.0:5061/path"]', "sip.listen[0]", "Write it as"),
    ('[xmpp]\nclient = ["udp://127.0.0.1:5222"]', "xmpp.client[0]", "Use tcp:// or tls://"),
    ('[xcap]\nlisten = ["http://127.0.0.1:8444"]', "xcap.listen[0]", "Use https://"),
    ('[xcap]\nlisten = ["https://127.0.0.1:8444"]\n[policy]\npresence = false', "xcap.listen", "presence = false"),
    (
        '[xcap]\nlisten = ["https://0.0.0.0:8443"]\n[web]\nlisten = ["https://127.0.0.1:8443"]',
        "xcap.listen[0]",
        "taken by web.listen[0]",
    ),
    ('[sip]\nlisten = ["udp://0.0.0.0:5060"]', "sip.listen[0]", "plaintext_from"),
    ('[sip]\nlisten = ["tcp://192.168.1.2:5060"]', "sip.listen[0]", "or listen on 127.0.0.1"),
    ('[web]\nlisten = ["http://0.0.0.0:8080"]', "web.listen[0]", "plaintext_from"),
    ('[sip]\nlisten = ["tls://0.0.0.0:5061", "tcp://127.0.0.1:5061"]', "sip.listen[1]", "taken by sip.listen[0]"),
    ('[xmpp]\nserver = ["tcp://127.0.0.1:5222"]', "xmpp.server[0]", "taken by xmpp.client[0]"),
    ('[policy]\nplaintext_from = "10.0.0.0/8"', "policy.plaintext_from", 'Write ["192.168.1.0/24"]'),
    ('[policy]\nplaintext_from = ["10.0.0.1/8"]', "policy.plaintext_from[0]", 'Write it like "192.168.1.0/24"'),
    ('[policy]\nplaintext_from = ["0.0.0.0/0"]', "policy.plaintext_from[0]", "Name the network your phones are in"),
    ('[policy]\nsip_md5 = "yes"', "policy.sip_md5", "Write true or false"),
    ("[policy]\nscram_sha1 = 0", "policy.scram_sha1", "Write true or false"),
    ("[policy]\nscram_iterations = 65535", "policy.scram_iterations", "65536"),
    (
        '[policy]\npresence_default = "allow"',
        "policy.presence_default",
        "There is: ask, contacts, deny, domain, everyone",
    ),
    ('[[policy.protection]]\nrequire = ["tls"]', "policy.protection[0].of", "is missing"),
    ('[[policy.protection]]\nof = "a b"\nrequire = ["tls"]', "policy.protection[0].of", "Write a domain name alone"),
    ('[[policy.protection]]\nof = "a@@b"\nrequire = ["tls"]', "policy.protection[0].of", "alice@example.org"),
    ('[[policy.protection]]\nof = "*"\nrequire = "tls"', "policy.protection[0].require", 'Write it like ["tls"]'),
    ('[[policy.protection]]\nof = "*"\nrequire = ["tsl"]', "policy.protection[0].require[0]", 'Did you mean "tls"?'),
    ('[[policy.protection]]\nof = "*"\nrequires = ["tls"]', "policy.protection[0].requires", 'Did you mean "require'),
    ('[[policy.protection]]\nof = "*"\nverify = "drop"', "policy.protection[0].verify", "There is: mark, off, refuse"),
    ('[[policy.protection]]\nof = "*"\nverify = "mark"', "policy.protection[0].verify", "trust ="),
    ('[[policy.protection]]\nof = "*"\noperations = "signed"', "policy.protection[0].operations", "trust ="),
    ('[[policy.protection]]\nof = "*"\noperations = "all"', "policy.protection[0].operations", "There is: any, signed"),
    ('[[policy.protection]]\nof = "*"', "policy.protection[0]", "asks for nothing"),
    (
        '[[policy.protection]]\nof = "*"\nverify = "mark"\nverdicts = []\n[security]\ntrust = "people.pem"',
        "policy.protection[0].verdicts",
        "leave it out",
    ),
    (
        '[[policy.protection]]\nof = "a.test"\nrequire = ["tls"]\n[[policy.protection]]\nof = "A.test"\nrequire = ["tls"]',
        "policy.protection[1].of",
        "Put both into one",
    ),
    ('[policy.protection]\nof = "*"', "policy.protection", "with two brackets"),
    ("[security]\ntrust = true", "security.trust", "Write it in quotes"),
    ('[store]\nengine = "sqllite"', "store.engine", 'Did you mean "sqlite"?'),
    ('[store]\nengine = "nats"', "store.url", 'needs url = "tls://HOST:4222"'),
    ('[store]\nengine = "nats"\nurl = "http://x"', "store.url", 'Write url = "tls://HOST:4222"'),
    ('[store]\nurl = "tls://x:4222"', "store.url", 'write engine = "nats"'),
    ("[federation]\ndns = true\norder = []", "federation.order", "names no protocol"),
    ('[federation]\norder = ["smtp"]', "federation.order[0]", "There is"),
    ("[federation]\ntargets = 0", "federation.targets", "from 1 to 16"),
    ('[federation]\nnetworks = ["0.0.0.0/0"]', "federation.networks[0]", "the whole Internet"),
    ('[federation]\nnameservers = ["dns.example"]', "federation.nameservers[0]", "Write its IP address"),
    ('[federation]\nnameservers = "127.0.0.1"', "federation.nameservers", "not a list of DNS servers"),
    (
        '[[route]]\ndomain = "a.example"\nvia = "xmpp"\nnext_hop = "udp://a"',
        "route[0].next_hop",
        "Use tls:// or tcp://",
    ),
    ('[policy]\ndialback = ["*"]', "policy.dialback[0]", "Write a domain name alone"),
    ('[[route]]\ndomain = "a.example"\nnext_hop = ""', "route[0].next_hop", 'Write it as "tls://'),
    ('[[route]]\ndomain = "Example.org"\nnext_hop = "tls://a"', "route[0].domain", "domain of this server"),
    ('[[route]]\ndomain = "a.example"\nnext_hop = "tls://a"\ntransit = "*"', "route[0].transit", 'or ["*"] for all'),
    (
        '[[route]]\ndomain = "a.example"\nnext_hop = "tls://a"\ntransit = ["a b"]',
        "route[0].transit[0]",
        "Write a domain name alone",
    ),
    (
        '[sip]\nlisten = ["tcp://127.0.0.1"]\n[[route]]\ndomain = "a.example"\nnext_hop = "udp://10.0.0.1"',
        "route[0].next_hop",
        "needs a UDP socket of ours",
    ),
    ('[[peer]]\naddress = ["10.0.0.2"]', "peer[0].name", "is missing"),
    ('[[peer]]\nname = "a.example"', "peer[0]", "can prove itself by nothing"),
    ('[[peer]]\nname = "a.example"\naddress = ["0.0.0.0/0"]', "peer[0].address[0]", "the whole Internet"),
    ('[[peer]]\nname = "example.org"\naddress = ["10.0.0.2"]', "peer[0].name", "domain of this server"),
    (
        '[[peer]]\nname = "a.example"\naddress = ["10.0.0.2"]\nspeaks_for = ["example.org"]',
        "peer[0].speaks_for[0]",
        "domain of this server",
    ),
    (
        '[[peer]]\nname = "a.example"\naddress = ["10.0.0.2"]\n[[peer]]\nname = "A.example"\naddress = ["10.0.0.3"]',
        "peer[1].name",
        "Put both into one",
    ),
    ('[peer]\nname = "a.example"', "peer", "Write [[peer]] with two brackets"),
    ('[[peers]]\nname = "a.example"', "peers", 'Did you mean "peer"?'),
    ('[policy]\ntrusted_peers = ["a.example"]', "policy.trusted_peers", "There is"),
    ('[[route]]\nvia = "sip"\nnext_hop = "tls://a"', "route[0].domain", "is missing"),
    ('[[route]]\ndomain = "a.example"\nvia = "smtp"\nnext_hop = "tls://a"', "route[0].via", "sip"),
    ('[[route]]\ndomain = "a.example"\nnext_hop = "a:5060"', "route[0].next_hop", 'Write it as "tls://'),
    (
        '[[route]]\ndomain = "a.example"\nvia = "apex"\nnext_hop = "udp://a"',
        "route[0].next_hop",
        "Use tls:// or tcp://",
    ),
    ('[[route]]\ndomain = "a.example"\nnext_hop = "tls://a"\nhop = 1', "route[0].hop", "next_hop"),
    ('[route]\ndomain = "a.example"', "route", "Write [[route]] with two brackets"),
    ('[[xmpp.component]]\ndomain = "a.example"\nsecret = ""', "xmpp.component[0].secret", "Write the secret"),
    ('[[xmpp.component]]\ndomain = "a.example"', "xmpp.component[0].secret", "is missing"),
    (f'[[xmpp.component]]\ndomain = "a.example"{SECRET}', "xmpp.component[0].domain", "leads nowhere"),
    (
        f'[[xmpp.component]]\ndomain = "example.org"{SECRET}\n[[xmpp.component]]\ndomain = "Example.org"{SECRET}',
        "xmpp.component[1].domain",
        "Keep one",
    ),
    (
        f'[[xmpp.component]]\ndomain = "example.org"{SECRET}\nserves = ["example.org"]',
        "xmpp.component[0].serves",
        "not of the other one",
    ),
    (
        f'[[xmpp.component]]\ndomain = "example.org"{SECRET}\nhost = "10.0.0.2"',
        "xmpp.component[0].host",
        "without TLS, and is not this machine",
    ),
    (
        f'[[xmpp.component]]\ndomain = "example.org"{SECRET}\nhost = "xmpp.example"',
        "xmpp.component[0].host",
        "plaintext_from",
    ),
    (f'[[xmpp.accept]]\ndomain = "a.example"{SECRET}', "xmpp.accept[0]", "no port for components"),
    (
        f'[xmpp]\ncomponent_listen = ["tcp://127.0.0.1"]\n[[xmpp.accept]]\ndomain = "example.org"{SECRET}',
        "xmpp.accept[0].domain",
        "served by something else",
    ),
    (
        f'[xmpp]\ncomponent_listen = ["tcp://127.0.0.1"]\n'
        f'[[xmpp.accept]]\ndomain = "a.example"{SECRET}\n[[xmpp.accept]]\ndomain = "a.example"{SECRET}',
        "xmpp.accept[1].domain",
        "Keep one",
    ),
    ('[xmpp]\ncomponent_listen = ["tcp://0.0.0.0"]', "xmpp.component_listen[0]", "unencrypted traffic"),
    ('[[xmpp.component]]\ndomain = "a.b"\nsecret = "x"\nport = 0', "xmpp.component[0].port", "from 1 to 65535"),
    ("[limits]\nhop = 5", "limits.hop", 'Did you mean "hops"?'),
    ("[limits]\nhops = 0", "limits.hops", "from 1 to 255"),
    *(
        (f'[[route]]\ndomain = "b.example"\nnext_hop = "tls://b"\n{text}', key, cure)
        for text, key, cure in (
            ('as = "Example.org"', "route[0].as", 'is = "xmpp.example.org"'),
            ('user = "u"', "route[0].password_file", "user = "),
            ('password_file = "u"', "route[0].user", "or neither"),
            ('next_hop = ["tls://a", "b"]'.replace("next_hop", "as"), "route[0].as", "domain name alone"),
            ('register = "1@b.example"', "route[0].register", 'Write ["1001@'),
            ('register = ["b.example"]', "route[0].register[0]", 'Write it like "1001@'),
            ("keep_alive = 0", "route[0].keep_alive", "Write seconds"),
            ('[[map]]\naddress = "a@example.org"\non = "c.example"\nis = "1@b.example"', "map[0].on", "[[route]]"),
            ('[[map]]\naddress = "a@example.org"\non = "b.example"\nis = "b.example"', "map[0]", "two addresses"),
            ('[[map]]\naddress = "a@example.org"\non = "b.example"', "map[0].is", "is missing"),
            ('[[map]]\naddress = "@b"\non = "b.example"\nis = "c@b.example"', "map[0].address", "no address"),
            *(
                (
                    f'as = "c.example"\n[[map]]\naddress = "{core}"\non = "b.example"\nis = "{wire}"',
                    "map[0]",
                    "one of the two",
                )
                for core, wire in (("b.example", "d.example"), ("d.example", "c.example"))
            ),
        )
    ),
    (
        '[[route]]\ndomain = "b.example"\nvia = "apex"\nnext_hop = ["tls://b", "tls://c"]',
        "route[0].next_hop",
        "takes one",
    ),
    (
        '[[route]]\ndomain = "b.example"\nvia = "apex"\nregister = ["a@b.example"]\nnext_hop = "tls://b"',
        "route[0].register",
        "by SIP",
    ),
    (
        '[[route]]\ndomain = "*"\nnext_hop = "tls://b"\nregister = ["a@b.example"]',
        "route[0]",
        "a route of its own",
    ),
    ("[limits]\nhops = true", "limits.hops", "from 1 to 255"),
    ('[limits]\ncpim_message = "64 kB"', "limits.cpim_message", '"64 KiB"'),
    ("[limits]\nclient_stanza = -1", "limits.client_stanza", "Write octets"),
    ('[limits]\nban = "1 hour"', "limits.ban", '"72 h"'),
    ("[limits]\nban = nan", "limits.ban", "Write seconds"),
    ("[limits]\nban = inf", "limits.ban", "Write seconds"),
    ('[limits]\ndedup_window = "1 h"', "limits.dedup_window", "at least as long"),
    ("[limits]\ndisk_refuse = 70", "limits.disk_refuse", "larger than disk_warn"),
    ('[limits]\ncpim_message = "300 KiB"', "limits.cpim_message", "three quarters of client_stanza"),
    ('[limits]\ncpim_message_sip = "60 KiB"', "limits.cpim_message_sip", "at most sip_body"),
]


class TestMistakes:
    @pytest.mark.parametrize(("text", "key", "cure"), MISTAKES, ids=[f"{row[1]}:{i}" for i, row in enumerate(MISTAKES)])
    def test_a_mistake_names_its_key_and_its_cure(self, tmp_path: Path, text: str, key: str, cure: str) -> None:
        path = tmp_path / "comity.toml"
        found = mistakes_of(path, MINIMAL + text + "\n")
        assert [mistake.key for mistake in found] == [key]
        assert cure in f"{found[0].problem} {found[0].cure}"
        assert found[0].problem.endswith(".")
        assert found[0].cure
        # Not in the two lines of MINIMAL unless it is missing there; the mistake's own line is named.
        assert found[0].where.startswith(f"{path}:")
        assert str(found[0]).startswith(f"{found[0].where}: {key}: ")

    @pytest.mark.parametrize(
        ("domains", "key", "problem"),
        [
            ("[]", "server.domains", "is not a list of domains"),
            ('"example.org"', "server.domains", "is not a list of domains"),
            ('["exa mple.org"]', "server.domains[0]", "is not a domain"),
            ('["example.org", 7]', "server.domains[1]", "is not a domain"),
            ('["example.org", "EXAMPLE.org"]', "server.domains[1]", "is written twice"),
            ('["alice@example.org"]', "server.domains[0]", "is not a domain"),
            ('["example.org:5060"]', "server.domains[0]", "is not a domain"),
            ('["192.0.2.1"]', "server.domains[0]", "is an IP address"),
        ],
    )
    def test_domains_that_are_none(self, tmp_path: Path, domains: str, key: str, problem: str) -> None:
        found = mistakes_of(tmp_path / "comity.toml", f"[server]\ndomains = {domains}\n")
        assert [mistake.key for mistake in found] == [key]
        assert problem in found[0].problem

    def test_missing_domains_are_a_mistake(self, tmp_path: Path) -> None:
        found = mistakes_of(tmp_path / "comity.toml", "[sip]\n")
        assert [(m.key, m.cure) for m in found] == [
            ("server.domains", 'Write below [server]: domains = ["example.org"]'),
        ]

    def test_all_mistakes_are_said_at_once_with_their_lines(self, tmp_path: Path) -> None:
        text = (
            '[server]\ndomains = ["example.org"]\nmode = 1\n\n[policy]\nsip_md5 = 1\n[[route]]\n[[route]]\nvia = "x"\n'
        )
        path = tmp_path / "comity.toml"
        found = mistakes_of(path, text)
        lines = {mistake.key: mistake.where.rpartition(":")[2] for mistake in found}
        assert lines["server.mode"] == "3"
        assert lines["policy.sip_md5"] == "6"
        assert lines["route[1].via"] == "9"
        assert len(found) == 5

    def test_two_udp_and_tcp_listeners_share_a_port(self, tmp_path: Path) -> None:
        text = MINIMAL + '[sip]\nlisten = ["udp://127.0.0.1:5060", "tcp://127.0.0.1:5060", "tcp://[::1]:5060"]\n'
        assert mistakes_of(tmp_path / "comity.toml", text) == []

    def test_port_0_is_any_free_port_and_never_shared(self, tmp_path: Path) -> None:
        text = MINIMAL + '[sip]\nlisten = ["tcp://127.0.0.1:0", "tcp://127.0.0.1:0"]\n'
        assert mistakes_of(tmp_path / "comity.toml", text) == []

    def test_plain_sip_is_open_to_a_network_that_is_named(self, tmp_path: Path) -> None:
        text = MINIMAL + '[sip]\nlisten = ["udp://0.0.0.0:5060"]\n[policy]\nplaintext_from = ["192.168.1.0/24"]\n'
        assert mistakes_of(tmp_path / "comity.toml", text) == []

    @pytest.mark.parametrize(
        ("octets", "problem"),
        [(b"[server", "is not TOML"), (b"\xff\xfe", "is not UTF-8"), (b"x = " + b"[" * 5000, "")],
    )
    def test_a_file_that_is_no_toml(self, tmp_path: Path, octets: bytes, problem: str) -> None:
        path = tmp_path / "comity.toml"
        path.write_bytes(octets)
        with pytest.raises(ConfigErrors) as caught:
            read(path)
        assert problem in str(caught.value)
        assert len(caught.value.mistakes) == 1

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        found = check(tmp_path / "none.toml")
        assert "comity init" in found[0].cure

    @given(st.binary(max_size=200))
    def test_arbitrary_octets_give_a_configuration_or_mistakes(self, octets: bytes) -> None:
        with in_memory(MINIMAL.encode() + octets) as path:
            assert isinstance(outcome(path), Config | tuple)

    @given(
        st.sampled_from([f"{name}.{f.name}" for name, kind in SECTIONS.items() for f in fields(kind)]),
        st.recursive(
            st.one_of(
                st.booleans(),
                st.integers(),
                st.floats(),
                st.sampled_from(["", "a", "tls://", "1 h", "://", "[", "a.b", "tcp://[::1", "tcp://[::1]:x", "1 KiB"]),
            ),
            lambda inner: st.lists(inner, max_size=3),
            max_leaves=4,
        ),
    )
    def test_any_value_of_any_key_gives_a_configuration_or_mistakes(self, key: str, value: object) -> None:
        section, _, name = key.partition(".")
        with in_memory(f"[{section}]\n{name} = {_toml(value)}\n".encode()) as path:
            found = outcome(path)
            assert isinstance(found, Config) or all(mistake.problem and mistake.key for mistake in found)


@contextmanager
def in_memory(octets: bytes) -> Iterator[Path]:
    """A file without a directory, because Hypothesis makes thousands."""
    descriptor = os.memfd_create("config")
    path = Path(f"/proc/self/fd/{descriptor}")
    try:
        path.write_bytes(octets)
        yield path
    finally:
        os.close(descriptor)


def outcome(path: Path) -> Config | tuple[ConfigError, ...]:
    """A configuration or at least one mistake; every other exception fails the test."""
    try:
        return read(path)
    except ConfigErrors as errors:
        return errors.mistakes or (ConfigError("", ""),)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return f'"{value}"' if isinstance(value, str) else repr(value)


# --- the machine ----------------------------------------------------------------------------------------------------


def certificate(key: ec.EllipticCurvePrivateKey, names: list[str], start: datetime, days: int = 10) -> bytes:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "example.org")])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


def only(path: Path, key: str) -> ConfigError:
    found = check(path / "comity.toml")
    assert [mistake.key for mistake in found] == [key], [str(mistake) for mistake in found]
    return found[0]


class TestMachine:
    def test_a_missing_certificate_names_what_makes_one(self, tmp_path: Path) -> None:
        (tmp_path / "comity.toml").write_text(MINIMAL)
        found = check(tmp_path / "comity.toml")
        assert [mistake.key for mistake in found] == ["tls.certificate", "tls.key"]
        assert f"comity init {tmp_path} --certificates" in found[0].cure

    def test_no_certificate_is_needed_without_tls(self, tmp_path: Path) -> None:
        text = MINIMAL + '[sip]\nlisten = ["udp://127.0.0.1:5060"]\n[xmpp]\nclient = []\n'
        (tmp_path / "comity.toml").write_text(text)
        assert check(tmp_path / "comity.toml") == []

    def test_a_certificate_that_is_no_pem(self, ready: Path) -> None:
        (ready / "data/tls/server.pem").write_bytes(b"\x30\x82")
        assert "-----BEGIN CERTIFICATE-----" in only(ready, "tls.certificate").cure

    def test_a_key_that_is_no_pem(self, ready: Path) -> None:
        (ready / "data/tls/server.key").write_text("nothing")
        assert "-----BEGIN PRIVATE KEY-----" in only(ready, "tls.key").cure

    def test_a_key_with_a_passphrase(self, ready: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        encryption = serialization.BestAvailableEncryption(b"x")
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        (ready / "data/tls/server.key").write_bytes(pem)
        assert "passphrase" in only(ready, "tls.key").problem

    def test_a_key_of_another_certificate(self, ready: Path) -> None:
        init_certificates(ready / "other", ["example.org"])
        (ready / "data/tls/server.key").write_bytes((ready / "other/tls/server.key").read_bytes())
        assert "is not the key of" in only(ready, "tls.key").problem

    def test_a_certificate_that_covers_not_every_domain(self, ready: Path) -> None:
        (ready / "comity.toml").write_text('[server]\ndomains = ["example.org", "example.net"]\n')
        mistake = only(ready, "tls.certificate")
        assert "does not cover example.net: it names example.org" in mistake.problem
        assert "subjectAltName" in mistake.cure

    @pytest.mark.parametrize(("start", "problem"), [(-20, "expired on"), (+5, "is not valid before")])
    def test_a_certificate_out_of_its_time(self, ready: Path, start: int, problem: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        when = datetime.now(UTC) + timedelta(days=start)
        (ready / "data/tls/server.pem").write_bytes(certificate(key, ["example.org"], when))
        no_encryption = serialization.NoEncryption()
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, no_encryption)
        (ready / "data/tls/server.key").write_bytes(pem)
        assert problem in only(ready, "tls.certificate").problem

    def test_names_cover_domains_exactly_or_by_one_label(self) -> None:
        assert covers(["example.org"], "example.org")
        assert covers(["*.example.org"], "im.example.org")
        assert not covers(["*.example.org"], "a.im.example.org")
        assert not covers(["*.example.org"], "example.org")
        assert covers(["xn--bcher-kva.example"], "bücher.example")

    def test_a_data_directory_open_to_others_is_refused(self, ready: Path) -> None:
        """B-01."""
        (ready / "data").chmod(0o750)
        assert f"chmod 700 {ready / 'data'}" in only(ready, "server.data").cure

    def test_a_data_directory_that_is_a_file(self, ready: Path) -> None:
        (ready / "file").write_text("")
        tls = '[tls]\ncertificate = "data/tls/server.pem"\nkey = "data/tls/server.key"\n'
        (ready / "comity.toml").write_text(MINIMAL + 'data = "file"\n' + tls)
        assert "is not a directory" in only(ready, "server.data").problem

    def test_a_data_directory_that_cannot_be_written(self, ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The kernel's answer is put in, because root may write anywhere."""
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        assert f"chown USER {ready / 'data'}" in only(ready, "server.data").cure

    def test_a_network_file_system_is_recognised(self) -> None:
        """B-01, reliability.md section 6.1 item 10."""
        mounts = (
            "22 1 0:21 / / rw - ext4 /dev/sda rw\n"
            "23 22 0:22 / /srv rw,relatime - nfs4 server:/srv rw\n"
            "24 22 0:23 / /srv/local\\040disk rw - xfs /dev/sdb rw\n"
        )
        assert file_system_of(Path("/srv/comity"), mounts) == "nfs4"
        assert file_system_of(Path("/srv/local disk/x"), mounts) == "xfs"
        assert file_system_of(Path("/srvx"), mounts) == "ext4"


class TestWarnings:
    """What works and is not wise: said by ``comity config check`` and at the start, and no mistake."""

    def test_one_target_alone_and_federation_without_trust_are_warned_of(self, tmp_path: Path) -> None:
        """ADDR-10: RFC 3861 section 6 asks for two at least."""
        path = tmp_path / "comity.toml"
        path.write_text('[server]\ndomains = ["example.org"]\n[federation]\ndns = true\ntargets = 1\n')
        said = {warning.key: str(warning) for warning in warnings_about(read(path))}
        assert set(said) == {"federation.targets", "federation.dns"}
        assert "comity.toml:5" in said["federation.targets"]
        assert "write targets = 2 or more" in said["federation.targets"]
        assert 'trust = "/etc/ssl/certs/ca-certificates.crt"' in said["federation.dns"]
        path.write_text('[server]\ndomains = ["example.org"]\n[federation]\ntargets = 2\n')
        assert not warnings_about(read(path))
