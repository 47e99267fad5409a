"""What certificates prove, and what our own certificates hold (SEC-17 to SEC-19)."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from comity.cpim.address import Address
from comity.errors import SecurityError
from comity.secure import Identity, new_identity
from comity.secure.identity import addresses_of, name_of, proves
from tests.secure import kit
from tests.secure.kit import ALICE, NOW


def test_our_certificates_hold_each_name_in_an_entry_of_its_own() -> None:
    """RFC 3923 section 6.3: "two separate entries"."""
    certificate = kit.identity().certificate
    entries = list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    assert [type(entry) for entry in entries] == [x509.UniformResourceIdentifier] * 3 + [x509.OtherName]
    texts = list(map(str, addresses_of(certificate)))
    assert texts == ["im:alice@a.test", "pres:alice@a.test", "sip:alice@a.test", "xmpp:alice@a.test"]


@pytest.mark.parametrize("local", ["d'artagnan", "a b", "é", "a@b", "Ünïcode", "a/b", "a%b"])
def test_odd_local_parts_are_proved_too(local: str) -> None:
    """ADDR-4: decoded, compared exactly."""
    address = Address.im(local, "bücher.test")
    identity = new_identity(address, when=NOW)
    assert proves(addresses_of(identity.certificate), address.uri)
    assert not proves(addresses_of(identity.certificate), Address.im(local + "x", "bücher.test").uri)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "alice@a.test",
        "im:",
        "im:@a.test",
        "im:a@",
        "http://a.test/",
        "im:a\0@a.test",
        "im:a%0d@a.test",
        "im:a\n@a.test",
    ],
)
def test_what_is_no_address_proves_nothing(uri: str) -> None:
    assert name_of(uri) is None
    assert not proves(addresses_of(kit.identity().certificate), uri)


@pytest.mark.parametrize(
    ("claimed", "by", "expected"),
    [
        ("im:a@x.test", "im:a@x.test", True),
        ("im:a@x.test", "IM:%61@X.TEST", True),
        ("im:A@x.test", "im:a@x.test", False),
        ("im:a@x.test", "pres:a@x.test", False),
        ("pres:a@x.test", "im:a@x.test", False),
        ("sip:a@x.test", "im:a@x.test", False),
        ("sip:a@x.test", "sip:a@x.test", True),
        ("sips:a@x.test", "sip:a@x.test:5061", True),
        ("im:a@x.test", "sip:a@x.test", False),
        ("im:a@x.test", "im:a@sub.x.test", False),
        ("im:a@x.test", "im:x.test", False),
    ],
)
def test_schemes_are_kept_apart(claimed: str, by: str, expected: bool) -> None:
    """SEC-18, SEC-19."""
    name = name_of(by)
    assert proves([name] if name else [], claimed) is expected


def test_a_key_of_another_certificate_is_refused() -> None:
    with pytest.raises(SecurityError, match="does not belong"):
        Identity(ALICE, ec.generate_private_key(ec.SECP256R1()), (kit.identity().certificate,))
    with pytest.raises(SecurityError, match="no certificate"):
        Identity(ALICE, kit.identity().key, ())


def test_validity_begins_before_and_ends_after() -> None:
    certificate = new_identity(ALICE, when=NOW, days=30).certificate
    assert certificate.not_valid_before_utc < NOW
    assert certificate.not_valid_after_utc == NOW + timedelta(days=30)


def test_thousands_of_names_are_not_all_read() -> None:
    names = [x509.UniformResourceIdentifier(f"im:user{n}@a.test") for n in range(500)]
    assert len(addresses_of(kit.certificate_with(names).certificate)) == 64
