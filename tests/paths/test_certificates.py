"""TLS of a running server: what is refused (X-40), certificates renewed and spoilt while it runs (F-28, F-K20)."""

from __future__ import annotations

import base64
import datetime
import hashlib
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from comity.client import text_object
from comity.sasl import ScramClient
from tests.loop import in_loop
from tests.net.kit import Ca
from tests.paths.kit import ALICE, BOB, PASSWORD, ServerProcess

HEADER = (
    b"<?xml version='1.0'?><stream:stream to='a.test' version='1.0' xmlns='jabber:client' "
    b"xmlns:stream='http://etherx.jabber.org/streams'>"
)
SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
WAIT_SECONDS = 20.0


class Served:
    """A running server whose certificate can be replaced."""

    def __init__(self, directory: Path) -> None:
        self.server = ServerProcess(directory)
        self.folder = self.server.directory / "data" / "tls"
        self.certificate, self.key = self.folder / "server.pem", self.folder / "server.key"
        self.ca_file = self.folder / "ca.pem"
        self.server.start()

    def install(self, pair: tuple[Path, Path]) -> bytes:
        """Replace both files; the DER of the new certificate."""
        shutil.copy(pair[0], self.certificate)
        shutil.copy(pair[1], self.key)
        return ssl.PEM_cert_to_DER_cert(self.certificate.read_text())

    def log(self) -> str:
        return (self.server.directory / "log").read_text("utf-8")

    def reload(self) -> str:
        """SIGHUP; the log line that says what came of it."""
        before = len(self.log())
        assert self.server.process is not None
        self.server.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            found = re.search(r"^.* comity\.cli\.server: ((?:not )?reloaded.*)$", self.log()[before:], re.MULTILINE)
            if found:
                return found[1]
            time.sleep(0.02)
        raise AssertionError("nothing was logged: " + self.log()[before:])

    def connect(self) -> ssl.SSLSocket:
        """A TLS connection to the XMPP port, whatever the certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context.wrap_socket(socket.create_connection(self.server.port("xmpp", "tls"), WAIT_SECONDS))

    def shown(self) -> bytes | None:
        """DER of the certificate a new connection is shown."""
        with self.connect() as sock:
            return sock.getpeercert(binary_form=True)

    def check(self) -> str:
        """What `comity config check` says of it, "" if nothing."""
        command = [sys.executable, "-m", "comity", "config", "check", "-c", str(self.server.config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode == 0) == (done.stderr == "")
        return done.stderr


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Ca:
    return Ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("tls"))
    yield served
    assert served.server.stop() == 0


def ask(sock: ssl.SSLSocket, octets: bytes, end: bytes) -> bytes:
    sock.sendall(octets)
    got = b""
    while not re.search(end, got):
        more = sock.recv(65536)
        assert more, got
        got += more
    return got


def sign_in_plus(sock: ssl.SSLSocket, end_point: bytes) -> bytes:
    """SCRAM-SHA-256-PLUS with this channel binding; the server's last word."""
    scram = ScramClient("SCRAM-SHA-256-PLUS", "alice", PASSWORD, "abc", end_point=end_point, server_offers_plus=True)
    auth = f"<auth xmlns='{SASL}' mechanism='SCRAM-SHA-256-PLUS'>{base64.b64encode(scram.first()).decode()}</auth>"
    got = ask(sock, auth.encode(), b"</challenge>")
    challenge = re.search(rb"<challenge[^>]*>([^<]*)<", got)
    assert challenge is not None
    final = base64.b64encode(scram.final(base64.b64decode(challenge[1]))).decode()
    return ask(sock, f"<response xmlns='{SASL}'>{final}</response>".encode(), b"</success>|</failure>")


@in_loop
async def test_renewed_certificate_is_shown_and_connections_live_on(served: Served, ca: Ca) -> None:
    """F-28: without a restart; a message goes by the connections made before."""
    old = served.shown()
    async with served.server.client("xmpp", ALICE, "tls") as alice, served.server.client("sip", BOB, "tls") as bob:
        new = served.install(ca.issue("a.test"))
        assert served.check() == ""
        assert served.reload() == "reloaded"
        assert re.search(r"server\.pem is shown to who connects from now on; it ends 20\d\d-", served.log())
        assert served.shown() == new != old
        assert (await alice.send(text_object(ALICE, BOB, "still here"), BOB)).status.name != "FAILURE"
        assert (await anext(bob.messages())).text == "still here"


def test_channel_binding_is_that_of_the_connections_own_certificate(served: Served, ca: Ca) -> None:
    """X-42: made before the reload it binds to the former certificate, also while the new one is in use."""
    old = served.install(ca.issue("a.test"))
    served.reload()
    with served.connect() as before:
        ask(before, HEADER, b"</stream:features>")
        new = served.install(ca.issue("a.test"))
        served.reload()
        assert b"<success" in sign_in_plus(before, hashlib.sha256(old).digest())
    with served.connect() as after:
        ask(after, HEADER, b"</stream:features>")
        assert b"<success" in sign_in_plus(after, hashlib.sha256(new).digest())
    with served.connect() as wrong:
        ask(wrong, HEADER, b"</stream:features>")
        assert b"not-authorized" in sign_in_plus(wrong, hashlib.sha256(old).digest())


def _wrong_key(served: Served, ca: Ca) -> None:
    served.key.write_bytes(ca.issue("b.test")[1].read_bytes())


def _expired(served: Served, ca: Ca) -> None:
    served.install(ca.issue("a.test", days=-1))


def _missing(served: Served, ca: Ca) -> None:
    served.certificate.unlink()


def _half_written(served: Served, ca: Ca) -> None:
    whole = served.certificate.read_bytes()
    served.certificate.write_bytes(whole[: len(whole) // 2])


def _half_written_chain(served: Served, ca: Ca) -> None:
    whole = served.certificate.read_bytes()
    served.certificate.write_bytes(whole + whole[: len(whole) // 2])


def _half_written_key(served: Served, ca: Ca) -> None:
    whole = served.key.read_bytes()
    served.key.write_bytes(whole[: len(whole) // 2])


def _other_name(served: Served, ca: Ca) -> None:
    served.install(ca.issue("other.test"))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_wrong_key, "is not the key of"),
        (_expired, "expired on"),
        (_missing, "there is no file"),
        (_half_written, "ends inside a certificate"),
        (_half_written_chain, "ends inside a certificate"),
        (_half_written_key, "holds no readable PEM private key"),
        (_other_name, "does not cover a.test"),
    ],
)
def test_bad_certificate_is_said_and_the_old_one_stays(
    served: Served, ca: Ca, spoil: Callable[[Served, Ca], None], sentence: str
) -> None:
    """F-28, F-K20: the check tells about the new one, the reload refuses it in one line, nobody notices."""
    used = served.install(ca.issue("a.test"))
    assert served.reload() == "reloaded"
    spoil(served, ca)
    assert sentence in served.check()
    line = served.reload()
    assert line.startswith("not reloaded, what was in use stays in use: ")
    assert sentence in line
    assert served.shown() == used
    again = served.install(ca.issue("a.test"))
    assert served.reload() == "reloaded"
    assert served.shown() == again


def test_certificate_without_one_hash_offers_no_channel_binding(served: Served, tmp_path: Path) -> None:
    """RFC 5929 section 4.1: Ed25519 has no hash of its own, so no -PLUS mechanism may be offered."""
    key = ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("a.test")]), critical=True)
        .sign(key, None)
    )
    files = tmp_path / "ed.pem", tmp_path / "ed.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    files[1].write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
    der = served.install(files)
    assert served.reload() == "reloaded"
    with served.connect() as sock:
        assert sock.getpeercert(binary_form=True) == der
        features = ask(sock, HEADER, b"</stream:features>")
    assert b"<mechanism>SCRAM-SHA-256</mechanism>" in features
    assert b"-PLUS" not in features
    assert b"channel-binding" not in features


def s_client(served: Served, *options: str, text: str = "", port: int = 0) -> str:
    """What OpenSSL's own client says of a connection to the XMPP port, or to another one."""
    port = port or served.server.port("xmpp", "tls")[1]
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "a.test", *options]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout + done.stderr


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_old_versions_are_refused(served: Served, version: str) -> None:
    """X-40."""
    heard = s_client(served, version, "-cipher", "ALL@SECLEVEL=0")
    assert "alert protocol version" in heard
    assert "Cipher is (NONE)" in heard


def test_renegotiation_is_refused(served: Served) -> None:
    """X-40, CVE-2021-32920: the connection goes on being useless to who tries."""
    heard = s_client(served, "-tls1_2", text="R\n")
    assert "RENEGOTIATING" in heard
    assert "no renegotiation" in heard


def test_no_ticket_is_given(served: Served, tmp_path: Path) -> None:
    """Section 6.1 item 1: a ticket would be good as long as the key it was made with, over connections and restarts."""
    for version in ("-tls1_2", "-tls1_3"):
        first = s_client(served, version, "-sess_out", str(tmp_path / f"session{version}"))
        assert "New, TLSv1." in first
        assert "session ticket" not in first


def test_nothing_is_resumed_over_tls_1_3(served: Served, tmp_path: Path) -> None:
    """Section 6.1 item 1. Of TLS 1.2 OpenSSL keeps 20,480 sessions in memory; Python has no call to say otherwise."""
    kept = tmp_path / "session"
    s_client(served, "-tls1_3", "-sess_out", str(kept))
    if kept.exists():
        assert "Reused" not in s_client(served, "-tls1_3", "-sess_in", str(kept))


def test_early_data_is_refused(served: Served, tmp_path: Path) -> None:
    """X-40: a session that allows it is got from another server; ours answers the handshake and drops the data."""
    early = tmp_path / "early"
    early.write_bytes(HEADER)
    kept = tmp_path / "session"
    command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-tls1_3", "-www", "-max_early_data", "16384"]
    files = ["-cert", str(served.certificate), "-key", str(served.key)]
    with subprocess.Popen([*command, *files], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        while (found := re.search(r"ACCEPT 127\.0\.0\.1:(\d+)", line := other.stdout.readline())) is None:
            assert line, "openssl s_server does not listen"
        said = s_client(served, "-ign_eof", "-sess_out", str(kept), text="GET / HTTP/1.0\r\n\r\n", port=int(found[1]))
        other.terminate()
    assert "Max Early Data: 16384" in said
    heard = s_client(served, "-tls1_3", "-sess_in", str(kept), "-early_data", str(early))
    assert "Early data was rejected" in heard
    assert "New, TLSv1.3" in heard
    assert "stream:features" not in heard
