"""``bindings/apex/endpoint.py``: who an endpoint identity names, and whom no address from elsewhere may become."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.bindings.apex.endpoint import MAX_IDENTITY, Endpoint
from comity.cpim.address import Address
from comity.errors import AddressError

TOKEN = st.text(
    st.characters(codec="utf-8", exclude_characters="/@", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20
)


def test_an_identity_is_local_subaddress_and_domain() -> None:
    """ADDR-27: RFC 3340 section 2.2."""
    assert Endpoint.parse("fred@example.com") == Endpoint("fred", "", "example.com")
    assert Endpoint.parse("fred/appl=wb@Example.COM.") == Endpoint("fred", "appl=wb", "example.com")
    assert Endpoint.parse("fred/appl=wb@example.com").bare == Endpoint.parse("fred@example.com")
    assert Endpoint.parse("fred@[10.0.0.1]").domain == Endpoint.parse("fred@10.0.0.1").domain
    assert str(Endpoint.parse("mr slate/x y@bücher.example")) == "mr slate/x y@xn--bcher-kva.example"


def test_local_parts_are_compared_exactly_and_decoded() -> None:
    """ADDR-27: RFC 3340 section 2.2.1."""
    assert Endpoint.parse("fred@example.com") != Endpoint.parse("Fred@example.com")
    assert Endpoint.of_uri("apex:f%72ed@example.com") == Endpoint.parse("fred@example.com")
    assert Endpoint.of_uri("APEX:fred/appl=im@example.com") == Endpoint.parse("fred/appl=im@example.com")


@pytest.mark.parametrize(
    "identity",
    [
        *("", "@", "fred", "fred@", "@a.test", "fred/@a.test", "/x@a.test", "fred/a/b@a.test", "a@b@a.test"),
        *("fr\x00ed@a.test", "fr\x7fed@a.test", "fred@a..test", "fred@[10.0.0", "f" * MAX_IDENTITY + "@a.test"),
    ],
)
def test_what_is_no_identity_is_refused(identity: str) -> None:
    """ADDR-27: no delimiter inside a token, no control characters, no end of length."""
    with pytest.raises(AddressError):
        Endpoint.parse(identity)


@pytest.mark.parametrize(
    "uri", ["fred@a.test", "im:fred@a.test", "apex:", "apex:fr ed@a.test", "apex:%ff@a.test", "apex:a%2fb%40c@a.test/"]
)
def test_what_is_no_apex_uri_is_refused(uri: str) -> None:
    with pytest.raises(AddressError):
        Endpoint.of_uri(uri)


def test_no_address_from_elsewhere_becomes_a_service() -> None:
    """ADDR-28: RFC 3340 section 2.2 reserves what begins with apex=."""
    for name in ("apex=report", "apex=", "apex=presence"):
        with pytest.raises(AddressError):
            Endpoint.of(Address.im(name, "a.test"))
        with pytest.raises(AddressError):
            Endpoint.parse(f"{name}@a.test").to_address()
    assert Endpoint.service("report", "a.test").service_name == "report"
    assert not Endpoint.of(Address.im("report", "a.test")).is_service
    for name in ("a/b", "a@b"):
        with pytest.raises(AddressError, match="no form"):
            Endpoint.of(Address("im", name, "a.test"))


@given(TOKEN, st.just("") | TOKEN)
def test_an_endpoint_comes_back_from_its_identity_and_its_uri(address: str, subaddress: str) -> None:
    """ADDR-27."""
    endpoint = Endpoint(address, subaddress, "a.test")
    assert Endpoint.parse(str(endpoint)) == endpoint
    assert Endpoint.of_uri(endpoint.uri) == endpoint
