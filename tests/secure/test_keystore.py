"""Keys and trust on disk."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from comity.cpim.address import Address
from comity.errors import SecurityError
from comity.secure import KeyStore, VerdictKind, new_identity, sign, verify
from comity.secure.chain import fingerprint
from comity.secure.identity import KeyKind, new_key, public_octets
from comity.secure.keyfile import identity_pem, key_blocks
from comity.secure.own_ca import crl_pem, revocation_list
from tests.secure import kit
from tests.secure.kit import ALICE, EVE, NOW
from tests.secure.pgpkit import person

PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "home")


def modes(path: Path) -> Iterator[tuple[bool, int]]:
    for entry in (path, *path.rglob("*")):
        yield entry.is_dir(), stat.S_IMODE(entry.stat().st_mode)


@pytest.mark.parametrize("kind", ["p256", "ed25519", "rsa"])
@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
def test_an_identity_comes_back_as_it_was(store: KeyStore, kind: KeyKind, passphrase: bytes | None) -> None:
    identity = kit.identity(kind=kind)
    store.save(identity, passphrase)
    loaded = store.load(ALICE, passphrase)
    assert loaded.fingerprint == identity.fingerprint
    signed = sign(kit.cpim(), loaded, when=NOW)
    assert verify(signed, store.trust_store(), now=NOW).is_valid
    assert store.identities() == [ALICE]


def test_directories_are_0700_and_files_0600(store: KeyStore) -> None:
    store.save(kit.identity())
    store.import_file(kit.ca().certificate.public_bytes(PEM), is_anchor=True)
    assert set(modes(store.path)) == {(True, 0o700), (False, 0o600)}


def test_a_directory_that_was_open_is_closed(store: KeyStore) -> None:
    (store.path / "keys").mkdir(parents=True)
    for folder in (store.path, store.path / "keys"):
        folder.chmod(0o755)
    store.save(kit.identity())
    assert {mode for is_directory, mode in modes(store.path) if is_directory} == {0o700}


def test_a_passphrase_encrypts_the_key_at_rest(store: KeyStore) -> None:
    store.save(kit.identity(), b"correct horse")
    text = next((store.path / "keys").glob("*.pem")).read_bytes()
    assert text.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert store.entries()[0].is_encrypted
    with pytest.raises(SecurityError, match="under a passphrase: give it"):
        store.load(ALICE)
    with pytest.raises(SecurityError, match="the passphrase is wrong"):
        store.load(ALICE, b"wrong")


def test_a_missing_key_says_how_to_make_one(store: KeyStore) -> None:
    with pytest.raises(SecurityError, match=r"comity keys new im:alice@a\.test"):
        store.load(ALICE)
    assert store.entries() == []
    assert store.trust_store().anchors == ()


def test_names_that_would_leave_the_directory_are_encoded(store: KeyStore) -> None:
    address = Address.im("../../etc/passwd", "a.test")
    store.save(new_identity(address, when=NOW))
    assert [file.parent for file in store.path.rglob("*.pem")] == [store.path / "keys"]
    assert store.identities() == [address]
    assert store.load(address).address == address


def test_a_key_and_a_certificate_that_do_not_fit_are_refused(store: KeyStore) -> None:
    store.save(kit.identity())
    file = next((store.path / "keys").glob("*.pem"))
    file.write_bytes(key_blocks(file.read_bytes())[0] + new_identity(ALICE, when=NOW).certificate.public_bytes(PEM))
    with pytest.raises(SecurityError, match="does not belong to its private key"):
        store.load(ALICE)


def test_a_damaged_key_is_said_to_be_damaged(store: KeyStore) -> None:
    store.save(kit.identity())
    next((store.path / "keys").glob("*.pem")).write_bytes(
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
    )
    with pytest.raises(SecurityError, match="damaged"):
        store.load(ALICE)


class TestTrust:
    def test_an_imported_certificate_is_kept_without_trust_until_trusted(self, store: KeyStore) -> None:
        signed = sign(kit.cpim(), kit.identity(), when=NOW)
        entry = store.import_file(kit.identity().certificate.public_bytes(DER))[0]
        assert (entry.shelf, entry.addresses[0]) == ("known", "im:alice@a.test")
        assert verify(signed, store.trust_store(), now=NOW).verdict is VerdictKind.UNTRUSTED
        store.trust(entry.fingerprint[:16])
        assert verify(signed, store.trust_store(), now=NOW).is_valid
        store.distrust("im:alice@a.test")
        verdict = verify(signed, store.trust_store(), now=NOW)
        assert "distrusted" in verdict.reason
        store.trust(kit.identity().certificate.public_bytes(PEM))
        assert verify(signed, store.trust_store(), now=NOW).is_valid

    def test_an_anchor_vouches_for_all_it_issued(self, store: KeyStore) -> None:
        store.import_file(kit.ca().certificate.public_bytes(PEM), is_anchor=True)
        assert verify(sign(kit.cpim(), kit.identity(), when=NOW), store.trust_store(), now=NOW).is_valid
        store.distrust(fingerprint(kit.ca().certificate))
        assert not verify(sign(kit.cpim(), kit.identity(), when=NOW), store.trust_store(), now=NOW).is_valid

    def test_an_end_entity_is_no_anchor(self, store: KeyStore) -> None:
        with pytest.raises(SecurityError, match="not a certification authority"):
            store.import_file(kit.identity().certificate.public_bytes(PEM), is_anchor=True)
        assert store.entries() == []

    def test_an_authority_that_was_distrusted_is_one_again_when_the_user_says_so(self, store: KeyStore) -> None:
        ca = kit.ca().certificate
        store.distrust(ca.public_bytes(PEM))
        store.import_file(ca.public_bytes(PEM), is_anchor=True)
        assert (store.certificates("anchors"), store.certificates("distrusted")) == ([ca], [])

    def test_a_private_key_or_openpgp_is_no_authority(self, store: KeyStore) -> None:
        """Who asks for --trust-anchor is not answered with something else."""
        with pytest.raises(SecurityError, match="not a certification authority"):
            store.import_file(identity_pem(kit.identity(), None), is_anchor=True)
        with pytest.raises(SecurityError, match="OpenPGP knows no authorities"):
            store.import_file(person().certificate, is_anchor=True)
        assert store.entries() == []

    @pytest.mark.parametrize("shelf", ["keys", "keys/old", "anchors", "pinned", "known", "distrusted"])
    def test_a_damaged_file_is_named(self, store: KeyStore, shelf: str) -> None:
        file = store.home.write(
            shelf, "eve@a.test.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        )
        with pytest.raises(SecurityError) as caught:
            store.entries()
        assert str(caught.value).startswith(f"{file} is damaged: restore or remove it.")

    def test_a_revocation_list_is_taken_in(self, store: KeyStore) -> None:
        store.import_file(kit.ca().certificate.public_bytes(PEM), is_anchor=True)
        store.import_file(
            crl_pem(revocation_list(kit.ca().certificate, kit.ca().key, kit.identity(EVE).certificate, when=NOW))
        )
        signed = sign(kit.cpim("im:eve@e.test"), kit.identity(EVE), when=NOW)
        assert "revoked" in verify(signed, store.trust_store(), now=NOW).reason

    def test_a_correspondents_certificate_is_remembered_from_a_verdict(self, store: KeyStore) -> None:
        """SEC-20: kept, and used for objects that leave it out."""
        verdict = verify(sign(kit.cpim(), kit.identity(), when=NOW), kit.trust(), now=NOW)
        store.remember(verdict.certificate)
        store.import_file(kit.ca().certificate.public_bytes(PEM), is_anchor=True)
        short = sign(kit.cpim(), kit.identity(), when=NOW, with_certificate=False)
        assert verify(short, store.trust_store(), now=NOW).is_valid

    @pytest.mark.parametrize("reference", ["0" * 16, "im:nobody@a.test", "", "zz"])
    def test_a_reference_to_nothing_is_said_so(self, store: KeyStore, reference: str) -> None:
        with pytest.raises(SecurityError, match="No certificate here matches"):
            store.show(reference)

    def test_an_ambiguous_reference_is_said_so(self, store: KeyStore) -> None:
        for _ in range(2):
            store.import_file(new_identity(ALICE, when=NOW).certificate.public_bytes(PEM))
        with pytest.raises(SecurityError, match="More than one"):
            store.export("im:alice@a.test")


class TestImportAndExport:
    def test_pkcs12_out_and_in(self, store: KeyStore, tmp_path: Path) -> None:
        store.save(kit.identity())
        data = store.export_private(ALICE, b"export")
        other = KeyStore(tmp_path / "other")
        with pytest.raises(SecurityError, match="another passphrase"):
            other.import_file(data, passphrase=b"wrong")
        entry = other.import_file(data, passphrase=b"export", new_passphrase=b"mine")[0]
        assert (entry.shelf, entry.is_encrypted) == ("own", True)
        assert other.load(ALICE, b"mine").fingerprint == kit.identity().fingerprint

    def test_a_private_key_never_leaves_without_a_passphrase(self, store: KeyStore) -> None:
        store.save(kit.identity())
        with pytest.raises(SecurityError, match="only under a passphrase"):
            store.export_private(ALICE, b"")

    def test_pem_key_with_certificate(self, store: KeyStore) -> None:
        key = kit.identity().key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        store.import_file(key + kit.identity().certificate.public_bytes(PEM))
        assert store.load(ALICE).fingerprint == kit.identity().fingerprint
        with pytest.raises(SecurityError, match="no certificate"):
            store.import_file(key)

    def test_export_gives_the_certificate_without_the_key(self, store: KeyStore) -> None:
        store.save(kit.identity())
        pem = store.export("im:alice@a.test")
        assert b"PRIVATE" not in pem
        assert x509.load_pem_x509_certificate(pem) == kit.identity().certificate
        assert store.show("im:alice@a.test").shelf == "own"

    @pytest.mark.parametrize(
        "data", [b"", b"hello", b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", b"\x30\x82" * 99]
    )
    def test_other_files_are_refused_with_a_sentence(self, store: KeyStore, data: bytes) -> None:
        with pytest.raises(SecurityError, match=r"\.$"):
            store.import_file(data)

    def test_a_huge_file_is_refused(self, store: KeyStore) -> None:
        with pytest.raises(SecurityError, match="larger than"):
            store.import_file(bytes(1024 * 1024 + 1))


def test_the_directory_is_comity_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "c"))
    assert KeyStore().path == tmp_path / "c"
    monkeypatch.delenv("COMITY_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert KeyStore().path == tmp_path / ".local" / "share" / "comity"


def test_a_directory_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SecurityError, match="cannot be written"):
        KeyStore(tmp_path / "file").save(kit.identity())


# --- crashes and neighbours -------------------------------------------------------------------------------------------


def started(act: Callable[[], object]) -> int:
    """Run ``act`` in a process of its own, which ends with 0, or with 1 if it raised SecurityError; gives its id."""
    child = os.fork()
    if child == 0:
        code = 2
        try:
            act()
            code = 0
        except SecurityError:
            code = 1
        finally:
            os._exit(code)
    return child


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def dying_at(step: int, act: Callable[[], object]) -> int:
    """Run ``act`` in a process that dies before its ``step``-th operation on the file system; 9 if it died."""

    def act_and_die() -> None:
        left = [step]

        def hook(event: str, _arguments: object) -> None:
            if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.chmod", "os.truncate"):
                left[0] -= 1
                if left[0] == 0:
                    os._exit(9)

        sys.addaudithook(hook)
        act()

    return ended(started(act_and_die))


class TestCrashes:
    def test_a_key_is_replaced_whole_or_not_at_all_wherever_it_is_killed(self, store: KeyStore) -> None:
        """Key and certificate never part, and the old key is never lost: what was encrypted for it opens."""
        old = new_identity(ALICE, when=NOW)
        store.save(old)
        seen = set()
        for step in range(1, 100):
            new = new_identity(ALICE, when=NOW)
            before = store.load(ALICE).fingerprint
            code = dying_at(step, partial(store.save, new))
            assert code in (0, 9)
            current = store.load(ALICE).fingerprint
            assert current in (before, new.fingerprint)
            assert old.fingerprint in {each.fingerprint for each in store.own.decrypting(ALICE)}
            assert before in {each.fingerprint for each in store.own.decrypting(ALICE)}
            seen.add((code, current == new.fingerprint))
            if code == 0:
                break
        assert seen >= {(9, False), (9, True), (0, True)}, "it was killed before, after and not at all"
        assert set(modes(store.path)) == {(True, 0o700), (False, 0o600)}

    def test_trusting_and_distrusting_never_leave_a_certificate_on_no_shelf(self, store: KeyStore) -> None:
        """Killed anywhere, a distrusted certificate is never trusted again by half a step."""
        pem = kit.identity().certificate.public_bytes(PEM)
        reference = fingerprint(kit.identity().certificate)
        for step in range(1, 100):
            store.trust(pem, when=NOW)
            code = dying_at(step, lambda: store.distrust(reference))
            shelves = {entry.shelf for entry in store.entries()}
            assert shelves & {"pinned", "distrusted"}
            if code == 0:
                assert shelves == {"distrusted"}
                return
            store.distrust(reference)
            assert not verify(sign(kit.cpim(), kit.identity(), when=NOW), store.trust_store(), now=NOW).is_valid
        raise AssertionError("it never came through")

    def test_a_request_and_its_certificate_are_joined_wherever_it_is_killed(self, store: KeyStore) -> None:
        for step in range(1, 100):
            key = new_key()
            store.own.request(ALICE, key)
            issued = kit.ca().issue(ALICE, key.public_key(), when=NOW).public_bytes(PEM)
            if dying_at(step, partial(store.import_file, issued)) == 0:
                break
            store.import_file(issued)  # again, after the crash
            assert public_octets(store.load(ALICE).key.public_key()) == public_octets(key.public_key())
        assert store.own.waiting() == []
        assert public_octets(store.load(ALICE).key.public_key()) == public_octets(key.public_key())


class TestNeighbours:
    def test_of_several_processes_one_makes_the_key(self, store: KeyStore) -> None:
        identities = [new_identity(ALICE, when=NOW) for _ in range(4)]
        children = [started(partial(store.own.save, each, is_new=True)) for each in identities]

        codes = sorted(map(ended, children))
        assert codes == [0, 1, 1, 1]
        assert store.load(ALICE).fingerprint in {each.fingerprint for each in identities}
