"""What the tests of OpenPGP build on: people with keys, objects of now, and a gpg with a home of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from comity.cpim.address import Address
from comity.cpim.operations import MimeObject
from comity.secure import TrustStore, Verdict, openpgp, verify
from comity.secure.openpgp import PgpIdentity
from tests.peers import need_program
from tests.secure import kit


def now() -> datetime:
    """pysequoia and gpg judge by the machine's clock."""
    return datetime.now(UTC)


@cache
def person(address: Address = kit.ALICE) -> PgpIdentity:
    return openpgp.new_identity(address, when=now())


def trusting(*people: PgpIdentity) -> TrustStore:
    return TrustStore(openpgp_pinned=tuple(one.certificate for one in people))


def message(content: bytes = b"Watson, come here.\r\n", **more: object) -> MimeObject:
    return kit.cpim(when=now(), content=content, **more)  # type: ignore[arg-type]  # keyword table of a test helper


def judged(obj: MimeObject | bytes, trust: TrustStore | None = None, **more: object) -> Verdict:
    """The verdict of who pinned Alice's key."""
    return verify(obj, trust or trusting(person()), now=now(), **more)  # type: ignore[arg-type]  # as message()


def multipart_signed(entity: bytes, signature: bytes, micalg: str = "pgp-sha512") -> MimeObject:
    """A multipart/signed as another program would write it."""
    header = f'multipart/signed; protocol="application/pgp-signature"; micalg={micalg}; boundary=b'
    octets = b"--b\r\n" + entity + b"\r\n--b\r\nContent-Type: application/pgp-signature\r\n\r\n" + signature
    return MimeObject.of(header, octets + b"\r\n--b--")


class Gpg:
    """GnuPG with its own home and keyring."""

    def __init__(self, home: Path) -> None:
        self.program = need_program("gpg")
        self.home = home

    def run(self, *options: str, stdin: bytes = b"", is_bad: bool = False) -> subprocess.CompletedProcess[bytes]:
        """Run it; ``is_bad`` says that it must fail."""
        command = [self.program, "--homedir", str(self.home), "--batch", "--no-tty", "--yes", "--quiet"]
        command += ["--pinentry-mode", "loopback", "--passphrase", "", "--trust-model", "always", *options]
        environment = {**os.environ, "LC_ALL": "C"}
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False, env=environment)
        assert (done.returncode != 0) == is_bad, done.stderr.decode("utf-8", "replace")
        return done

    def __call__(self, *options: str, stdin: bytes = b"") -> bytes:
        return self.run(*options, stdin=stdin).stdout

    def new_key(self, user_id: str, *, kind: str = "ed25519", subkey: str = "cv25519", expire: str = "1y") -> bytes:
        """Make a key with one encryption subkey; gives its certificate."""
        self("--quick-generate-key", user_id, kind, "sign,cert", expire)
        fingerprint = self.fingerprint(user_id)
        if subkey:
            self("--quick-add-key", fingerprint, subkey, "encr", expire)
        return self("--export", fingerprint)

    def fingerprint(self, user_id: str) -> str:
        lines = self("--with-colons", "--list-keys", f"={user_id}").decode().splitlines()
        return next(line.split(":")[9] for line in lines if line.startswith("fpr:"))

    def status(self, *options: str, stdin: bytes = b"") -> list[str]:
        """Keywords of its status lines."""
        done = self.run("--status-fd", "2", *options, stdin=stdin)
        return [
            line.split()[1]
            for line in done.stderr.decode("utf-8", "replace").splitlines()
            if line.startswith("[GNUPG:]")
        ]


@contextmanager
def gpg_home() -> Iterator[Gpg]:
    """A gpg of our own, its agent ended afterwards. The path is short: it holds a socket."""
    home = Path(tempfile.mkdtemp(prefix="pgp"))
    try:
        yield Gpg(home)
    finally:
        if (gpgconf := shutil.which("gpgconf")) is not None:
            subprocess.run([gpgconf, "--homedir", str(home), "--kill", "all"], check=False, timeout=30)
        shutil.rmtree(home, ignore_errors=True)
