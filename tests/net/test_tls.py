"""TLS: contexts from files, handshakes, STARTTLS, deadlines, channel binding, reload (X-36, X-40, F-28)."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import os
import socket
import ssl
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from comity.bindings.base import Target
from comity.errors import ConfigError, DeliveryError
from comity.net.limits import NetLimits
from comity.net.tls import TlsContexts, TlsFailure, TlsPipe, make_client_context, make_server_context, server_end_point
from comity.testing.clock import FakeClock
from tests.net.kit import Ca, EchoBinding, run_async, serving

Pair = tuple[Path, Path]


def end_point_of(certificate: Path) -> bytes:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).digest()


class TestDirect:
    @run_async
    async def test_octets_arrive_whole_and_in_small_pieces(self, ca: Ca, contexts: TlsContexts, pair: Pair) -> None:
        async with serving("tls", tls=contexts) as (_, binding, [address]):
            reader, writer = await asyncio.open_connection(*address, ssl=ca.client(), server_hostname="chat.example")
            writer.write(b"one\n")
            assert await reader.readline() == b"one\n"
            for octet in b"two\n":
                writer.write(bytes([octet]))
            assert await reader.readline() == b"two\n"
            large = b"x" * 1_000_000 + b"\n"
            writer.write(large)
            assert await reader.readexactly(len(large)) == large
            tls = binding.links[0].peer.tls
            assert tls is not None
            assert (binding.links[0].peer.transport, tls.version) == ("tls", "TLSv1.3")
            assert tls.server_end_point == end_point_of(pair[0])
            assert tls.peer_certificate is None
            writer.close()
            await writer.wait_closed()

    @run_async
    async def test_tls_1_2_works_without_tickets_compression_or_renegotiation(
        self, ca: Ca, contexts: TlsContexts
    ) -> None:
        async with serving("tls", tls=contexts) as (_, binding, [address]):
            context = ca.client()
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            reader, writer = await asyncio.open_connection(*address, ssl=context, server_hostname="chat.example")
            writer.write(b"old\n")
            assert await reader.readline() == b"old\n"
            ssl_object = writer.get_extra_info("ssl_object")
            assert ssl_object.compression() is None
            assert not ssl_object.session.has_ticket
            assert binding.links[0].peer.tls is not None
            assert binding.links[0].peer.tls.version == "TLSv1.2"
            writer.close()
            await writer.wait_closed()
        assert contexts.server is not None
        assert contexts.server.context.options & ssl.OP_NO_RENEGOTIATION
        assert contexts.server.context.num_tickets == 0

    @pytest.mark.parametrize("version", [b"\x03\x01", b"\x03\x02"], ids=["TLS 1.0", "TLS 1.1"])
    @run_async
    async def test_hello_of_an_old_version_gets_an_alert(self, contexts: TlsContexts, version: bytes) -> None:
        """X-40; the hello is made by hand because this OpenSSL will not send one."""
        suites = b"\xc0\x13\xc0\x14\x00\x2f\x00\x35"
        body = version + os.urandom(32) + b"\x00" + len(suites).to_bytes(2, "big") + suites + b"\x01\x00"
        hello = b"\x01" + len(body).to_bytes(3, "big") + body
        async with serving("tls", tls=contexts) as (_, binding, [address]):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"\x16\x03\x01" + len(hello).to_bytes(2, "big") + hello)
            answer = await reader.read()
            assert (answer[0], answer[-2:]) == (21, b"\x02\x46"), "fatal protocol_version (RFC 8446 section 6)"
            assert binding.links == [], "no session is made for a connection that is not secure"
            writer.close()

    @run_async
    async def test_octets_that_are_not_tls_end_the_connection(self, contexts: TlsContexts) -> None:
        async with serving("tls", tls=contexts) as (_, binding, [address]):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"<stream:stream to='chat.example'>")
            await reader.read()
            assert binding.links == []
            writer.close()

    @run_async
    async def test_handshake_that_is_not_finished_in_time_is_dropped(self, contexts: TlsContexts) -> None:
        clock = FakeClock()
        async with serving("tls", tls=contexts, clock=clock) as (network, _, [address]):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"\x16\x03\x01")
            silent = socket.create_connection(address)
            silent.setblocking(False)
            loop = asyncio.get_running_loop()
            for _ in range(20):
                await asyncio.sleep(0)
            assert (network.gate.total, network._making) == (2, set())
            clock.advance(9.9)
            assert network.links == 2
            clock.advance(0.2)
            assert await reader.read() == b""
            assert await asyncio.wait_for(loop.sock_recv(silent, 1), 5) == b""
            silent.close()
            writer.close()

    @run_async
    async def test_close_says_close_notify_and_half_close_lets_the_peer_go_on(
        self, ca: Ca, contexts: TlsContexts
    ) -> None:
        async with serving("tls", tls=contexts) as (network, binding, [address]):
            client = EchoBinding(is_quiet=True)
            link = await network.connect(client, Target("tls", *address, "chat.example"))
            client.sessions[link].ends_with_peer = False
            client.sessions[link].out.append(b"half\n")
            link.flush()
            await client.until(lambda: b"half" in client.lines())
            await client.until(lambda: len(client.events) == 2)
            client.sessions[link].out.append(b"still heard\n")
            link.flush()
            await binding.until(lambda: b"still heard" in binding.lines())
            link.close()
            await binding.until(lambda: bool(binding.closed))
            await client.until(lambda: bool(client.closed))
            assert (binding.closed[0][1], client.closed[0][1]) == (None, None)

    @run_async
    async def test_broken_record_is_reported_and_closes(self, contexts: TlsContexts, ca: Ca) -> None:
        async with serving("tls", tls=contexts) as (_, binding, [address]):
            reader, writer = await asyncio.open_connection(*address, ssl=ca.client(), server_hostname="chat.example")
            writer.write(b"ok\n")
            assert await reader.readline() == b"ok\n"
            raw = writer.get_extra_info("socket")
            os.write(raw.fileno(), b"\x17\x03\x03\x00\x20" + bytes(32))
            await binding.until(lambda: len(binding.closed) == 1)
            assert isinstance(binding.closed[0][1], DeliveryError)
            writer.transport.abort()

    @run_async
    async def test_slow_reader_is_bounded_under_tls_too(self, ca: Ca, contexts: TlsContexts) -> None:
        clock = FakeClock()
        async with serving("tls", tls=contexts, clock=clock) as (network, binding, [address]):
            client = EchoBinding(is_quiet=True)
            link = await network.connect(client, Target("tls", *address, "chat.example"))
            await binding.until(lambda: bool(binding.links))
            link.pause_reading()
            served = binding.links[0]
            binding.sessions[served].out.append(b"z" * 16_000_000)
            served.flush()
            await asyncio.sleep(0)
            assert served.unsent > 256 * 1024
            clock.advance(30)
            await binding.until(lambda: bool(binding.closed))
            link.abort()
            await client.until(lambda: bool(client.closed))

    @run_async
    async def test_pause_keeps_decrypted_octets_until_resumed(self, ca: Ca, contexts: TlsContexts) -> None:
        async with serving("tls", tls=contexts) as (_, binding, [address]):
            reader, writer = await asyncio.open_connection(*address, ssl=ca.client(), server_hostname="chat.example")
            # Two records in one segment: the second is already here when the first one pauses the link.
            writer.writelines([b"pause\n"])
            writer.write(b"later\n")
            await binding.until(lambda: b"pause" in binding.lines())
            for _ in range(20):
                await asyncio.sleep(0)
            assert binding.lines() == [b"pause"]
            binding.links[0].resume_reading()
            assert await reader.readline() == b"later\n"
            writer.close()
            await writer.wait_closed()


class TestStartTls:
    @run_async
    async def test_server_switches_after_its_last_octets_in_the_clear(
        self, ca: Ca, contexts: TlsContexts, pair: Pair
    ) -> None:
        async with serving("tcp", tls=contexts) as (_, binding, [address]):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"hello\n")
            assert await reader.readline() == b"hello\n"
            writer.write(b"STARTTLS\n")
            assert await reader.readline() == b"proceed\n"
            await writer.start_tls(ca.client(), server_hostname="chat.example")
            writer.write(b"secret\n")
            assert await reader.readline() == b"secret\n"
            tls = binding.links[0].peer.tls
            assert tls is not None
            assert tls.server_end_point == end_point_of(pair[0])
            assert len(binding.links) == 1, "the session is the same one"
            writer.close()
            await writer.wait_closed()

    @run_async
    async def test_octets_pipelined_behind_the_request_are_refused(self, contexts: TlsContexts) -> None:
        """X-36: the session sees them in the same read, refuses, and nothing is parsed."""
        async with serving("tcp", tls=contexts) as (_, binding, [address]):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"STARTTLS\ninjected\n")
            assert await reader.read() == b"refused\n"
            assert binding.lines() == []
            writer.close()

    @run_async
    async def test_octets_in_the_clear_after_the_switch_never_reach_the_session(self, contexts: TlsContexts) -> None:
        async with serving("tcp", tls=contexts) as (_, binding, [address]):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"STARTTLS\n")
            assert await reader.readline() == b"proceed\n"
            writer.write(b"injected\ninjected\n")
            await reader.read()
            writer.close()
            await binding.until(lambda: bool(binding.closed))
            assert binding.lines() == []
            assert "TLS with" in str(binding.closed[0][1])

    @run_async
    async def test_what_the_session_queues_during_the_handshake_waits_for_it(
        self, ca: Ca, contexts: TlsContexts
    ) -> None:
        async with serving("tcp", tls=contexts) as (_, binding, [address]):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"STARTTLS\n")
            assert await reader.readline() == b"proceed\n"
            link = binding.links[0]
            binding.sessions[link].out.append(b"only under TLS\n")
            link.flush()
            await asyncio.sleep(0)
            assert link.unsent == 15
            await writer.start_tls(ca.client(), server_hostname="chat.example")
            assert await reader.readline() == b"only under TLS\n"
            assert link.unsent == 0
            writer.close()
            await writer.wait_closed()

    @run_async
    async def test_client_side_starts_tls_and_checks_the_name(self, contexts: TlsContexts, pair: Pair) -> None:
        async with serving("tcp", tls=contexts) as (network, binding, [address]):
            client = EchoBinding(is_quiet=True)
            for name in ("chat.example", "other.example"):
                link = await network.connect(client, Target("tcp", *address))
                session = client.sessions[link]
                session.out.append(b"STARTTLS\n")
                link.flush()
                await client.until(lambda: b"proceed" in client.lines())
                client.events.clear()
                link.start_tls_client(name)
                session.out.append(b"hello\n")
                link.flush()
                if name == "chat.example":
                    await binding.until(lambda: b"hello" in binding.lines())
                    assert link.peer.tls is not None
                    assert link.peer.tls.server_end_point == end_point_of(pair[0])
                    link.abort()
                    await client.until(lambda: len(client.closed) == 1)
            await client.until(lambda: len(client.closed) == 2)
            assert "certificate does not verify" in str(client.closed[1][1])
            assert binding.lines().count(b"hello") == 1


class TestConnect:
    @run_async
    async def test_name_of_the_certificate_must_be_the_targets(self, contexts: TlsContexts) -> None:
        async with serving("tls", tls=contexts) as (network, _, [address]):
            client = EchoBinding(is_quiet=True)
            link = await network.connect(client, Target("tls", *address, "chat.example"))
            assert link.peer.tls is not None
            link.close()
            await client.until(lambda: bool(client.closed))
            with pytest.raises(DeliveryError, match="does not verify"):
                await network.connect(client, Target("tls", *address, "other.example"))
            with pytest.raises(DeliveryError):
                await network.connect(client, Target("tls", *address, "bad..name"))
            assert len(client.links) == 1

    @run_async
    async def test_server_that_never_finishes_the_handshake_is_a_delivery_error(self, contexts: TlsContexts) -> None:
        limits = NetLimits(handshake_seconds=0.05)
        async with serving("tcp", tls=contexts, limits=limits) as (network, _, [address]):
            with pytest.raises(DeliveryError, match="was not ready"):
                await network.connect(EchoBinding(), Target("tls", *address, "chat.example"))

    @run_async
    async def test_server_that_hangs_up_in_the_handshake_is_a_delivery_error(self, contexts: TlsContexts) -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        async with server, serving(tls=contexts) as (network, _, _):
            address = server.sockets[0].getsockname()
            with pytest.raises(DeliveryError):
                await network.connect(EchoBinding(), Target("tls", address[0], address[1], "chat.example"))

    @run_async
    async def test_client_certificate_is_optional_but_must_verify(self, ca: Ca, pair: Pair, tmp_path: Path) -> None:
        contexts = TlsContexts(*pair, trust=ca.file)
        peer = ca.issue("peer.example")
        async with serving("tls", tls=contexts) as (_, binding, [address]):
            context = ca.client()
            context.load_cert_chain(*peer)
            reader, writer = await asyncio.open_connection(*address, ssl=context, server_hostname="chat.example")
            writer.write(b"who\n")
            assert await reader.readline() == b"who\n"
            tls = binding.links[0].peer.tls
            assert tls is not None
            assert tls.peer_certificate == ssl.PEM_cert_to_DER_cert(peer[0].read_text())
            assert tls.names == ("peer.example",)
            writer.close()
            await writer.wait_closed()
            stranger = Ca(tmp_path)
            context = ca.client()
            context.load_cert_chain(*stranger.issue("peer.example"))
            reader, writer = await asyncio.open_connection(*address, ssl=context, server_hostname="chat.example")
            with pytest.raises((ssl.SSLError, ConnectionError)):
                writer.write(b"who\n")
                if not await reader.read():
                    raise ConnectionError
            assert len(binding.links) == 1
            writer.transport.abort()


@run_async
async def test_many_tls_connections_half_of_them_aborted_leave_nothing(ca: Ca, contexts: TlsContexts) -> None:
    """L-02, L-03; links, tasks and counts are checked by ``serving``."""
    limits = NetLimits(accepts_per_second=10_000)
    async with serving("tls", tls=contexts, limits=limits) as (network, binding, [address]):
        context = ca.client()
        before = len(os.listdir("/proc/self/fd"))
        for number in range(200):
            if number % 2:
                reader, writer = await asyncio.open_connection(*address)
                writer.write(b"\x16\x03\x01\x02\x00\x01")
            else:
                reader, writer = await asyncio.open_connection(*address, ssl=context, server_hostname="chat.example")
                writer.write(b"x\n")
                assert await reader.readline() == b"x\n"
            writer.transport.abort()
        async with asyncio.timeout(5):
            await network._empty.wait()
        assert len(os.listdir("/proc/self/fd")) == before
        assert len(binding.closed) == 100


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=40_000), max_size=4), st.integers(1, 5000), st.booleans())
def test_any_split_of_the_ciphertext_gives_the_same_octets(parts: list[bytes], step: int, is_old: bool) -> None:
    """Two pipes back to back, the octets between them cut anywhere."""
    server_context, client_context = _contexts_for_property()
    client_context.maximum_version = ssl.TLSVersion.TLSv1_2 if is_old else ssl.TLSVersion.TLSv1_3
    server, client = TlsPipe(server_context), TlsPipe(client_context, server_name="chat.example")

    def carry(receiver: TlsPipe, data: bytes) -> bytes:
        """Feed in pieces, doing after each what the driver does; gives the plaintext that came out."""
        out = b""
        for start in range(0, len(data), step):
            receiver.feed(memoryview(data[start : start + step]))
            if receiver.is_ready or receiver.handshake():
                while piece := receiver.read():
                    assert len(piece) <= 16 * 1024
                    out += piece
        return out

    client.handshake()
    while not (client.is_ready and server.is_ready):
        carry(server, client.outgoing())
        carry(client, server.outgoing())
    carry(server, client.outgoing())
    sent = b"".join(client.write(part) for part in parts)
    assert carry(server, sent) == b"".join(parts)
    back = b"".join(server.write(part) for part in parts)
    assert carry(client, back) == b"".join(parts)
    server.close_notify()
    client.feed(memoryview(server.outgoing()))
    assert client.read() == b""


@given(st.binary(max_size=600))
@settings(max_examples=200, deadline=None)
def test_arbitrary_octets_fail_or_wait_and_nothing_else(data: bytes) -> None:
    server, _ = _contexts_for_property()
    pipe = TlsPipe(server)
    pipe.feed(memoryview(data))
    with suppress(TlsFailure):
        assert not pipe.handshake()


@cache
def _contexts_for_property() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    with tempfile.TemporaryDirectory() as folder:
        ca = Ca(Path(folder))
        return make_server_context(*ca.issue("chat.example")), make_client_context(ca.file)


class TestContexts:
    """F-28, F-29: every mistake in the files is a sentence."""

    def test_missing_and_unreadable_files(self, pair: Pair, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"tls.certificate: the file .*/none.pem does not exist"):
            make_server_context(tmp_path / "none.pem", pair[1])
        with pytest.raises(ConfigError, match=r"tls.key: the file .*/none.key does not exist"):
            make_server_context(pair[0], tmp_path / "none.key")
        with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
            make_server_context(tmp_path, pair[1])
        with pytest.raises(ConfigError, match=r"tls.trust: the file .* does not exist"):
            make_server_context(*pair, trust=tmp_path / "none.pem")

    def test_wrong_contents(self, ca: Ca, pair: Pair, tmp_path: Path) -> None:
        other = ca.issue("other.example")
        with pytest.raises(ConfigError, match="does not belong to the certificate"):
            make_server_context(pair[0], other[1])
        with pytest.raises(ConfigError, match="holds no PEM certificate"):
            make_server_context(pair[1], pair[1])
        with pytest.raises(ConfigError, match="holds no PEM private key"):
            make_server_context(pair[0], pair[0])
        garbage = tmp_path / "garbage.pem"
        garbage.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        with pytest.raises(ConfigError, match="cannot be used"):
            make_server_context(garbage, pair[1])
        with pytest.raises(ConfigError, match="no usable CA"):
            make_client_context(trust=pair[1])
        key = serialization.load_pem_private_key(pair[1].read_bytes(), None)
        locked = tmp_path / "locked.key"
        encryption = serialization.BestAvailableEncryption(b"x")
        locked.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
        with pytest.raises(ConfigError, match="protected by a password"):
            make_server_context(pair[0], locked)

    @run_async
    async def test_reload_serves_the_new_certificate_and_keeps_the_old_if_the_new_is_bad(
        self, ca: Ca, tmp_path: Path
    ) -> None:
        certificate, key = tmp_path / "live.pem", tmp_path / "live.key"

        def install(pair: Pair) -> bytes:
            certificate.write_bytes(pair[0].read_bytes())
            key.write_bytes(pair[1].read_bytes())
            return ssl.PEM_cert_to_DER_cert(certificate.read_text())

        first = install(ca.issue("chat.example"))
        contexts = TlsContexts(certificate, key)
        async with serving("tls", tls=contexts) as (_, _, [address]):

            async def shown() -> bytes:
                context = ca.client()
                _, writer = await asyncio.open_connection(*address, ssl=context, server_hostname="chat.example")
                der: bytes = writer.get_extra_info("ssl_object").getpeercert(True)
                writer.close()
                await writer.wait_closed()
                return der

            assert await shown() == first
            second = install(ca.issue("chat.example"))
            contexts.reload()
            assert await shown() == second != first
            key.write_text("broken")
            with pytest.raises(ConfigError):
                contexts.reload()
            assert await shown() == second
            install(ca.issue("chat.example", days=-1))
            with pytest.raises(ConfigError, match="expired on"):
                contexts.reload()
            assert await shown() == second

    def test_expired_certificate_is_said_at_the_start(self, ca: Ca, caplog: pytest.LogCaptureFixture) -> None:
        TlsContexts(*ca.issue("late.example", days=-1))
        assert "expired on" in caplog.text


class TestServerEndPoint:
    """RFC 5929 section 4.1."""

    def test_hash_is_that_of_the_signature(self, ca: Ca) -> None:
        certificate, _ = ca.issue("long.example", algorithm=hashes.SHA384())
        der = ssl.PEM_cert_to_DER_cert(certificate.read_text())
        assert server_end_point(der) == hashlib.sha384(der).digest()

    def test_undefined_without_one_hash(self) -> None:
        key = ed25519.Ed25519PrivateKey.generate()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ed")])
        now = datetime.datetime(2026, 1, 1)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now)
            .not_valid_after(now + datetime.timedelta(days=1))
            .sign(key, None)
        )
        assert server_end_point(certificate.public_bytes(serialization.Encoding.DER)) == b""
        assert server_end_point(b"no certificate") == b""

    @pytest.mark.parametrize("digest", ["md5", "sha1"])
    def test_broken_hashes_are_replaced_by_sha_256(self, ca: Ca, pair: Pair, digest: str) -> None:
        """Nobody signs with these any more, so the algorithm's OID is exchanged in a certificate we have."""
        der = ssl.PEM_cert_to_DER_cert(pair[0].read_text())
        modern = bytes.fromhex("06082a8648ce3d040302")  # ecdsa-with-SHA256
        old = bytes.fromhex("06072a8648ce3d0401" if digest == "sha1" else "06092a864886f70d010104")
        broken = _replace_algorithm(der, modern, old)
        assert server_end_point(broken) == hashlib.sha256(broken).digest()


def _replace_algorithm(der: bytes, before: bytes, after: bytes) -> bytes:
    """Replace both signature algorithms of a certificate and set the lengths around them right."""

    def wrap(tag: int, content: bytes) -> bytes:
        size = len(content)
        length = bytes([size]) if size < 128 else bytes([0x80 | (size.bit_length() + 7) // 8])
        if size >= 128:
            length += size.to_bytes((size.bit_length() + 7) // 8, "big")
        return bytes([tag]) + length + content

    def unwrap(data: bytes) -> tuple[bytes, bytes]:
        """Content of the first value of ``data``, and what follows it."""
        if data[1] < 128:
            start, size = 2, data[1]
        else:
            start = 2 + (data[1] & 0x7F)
            size = int.from_bytes(data[2:start], "big")
        return data[start : start + size], data[start + size :]

    outer, _ = unwrap(der)
    tbs, rest = unwrap(outer)
    new_tbs = wrap(0x30, tbs.replace(wrap(0x30, before), wrap(0x30, after)))
    _, signature = unwrap(rest)
    return wrap(0x30, new_tbs + wrap(0x30, after) + signature)
