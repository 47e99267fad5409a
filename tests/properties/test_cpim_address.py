"""Properties of addresses: JIDs and URIs are a bijection, and no text gets anything but an address or AddressError."""

from __future__ import annotations

import re

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from comity.cpim.address import Address, escape_local, from_jid, from_sip_uri, to_jid, to_sip_uri, unescape_local
from comity.errors import AddressError

#: Text rich in what the escapes are about.
TRICKY = st.text(st.sampled_from(list("ab\\0257cCfFeEdD \"&'/:<>@%?;.ü")), min_size=1, max_size=24)
LOCALS = st.one_of(TRICKY, st.text(min_size=1, max_size=40))
ANY = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.sampled_from(
            [
                "im:",
                "sip:",
                "xmpp:",
                "@",
                "a",
                "%",
                "%41",
                "%C3",
                "ü",
                "x.example",
                "[::1]",
                ":",
                ";gr=",
                "?",
                "/",
                "\\20",
                "//",
                "xn--",
            ]
        ),
        max_size=12,
    ).map("".join),
)


@given(LOCALS)
@settings(max_examples=1000)
@example("\\5c5c40\\")
@example("\\5C2F")
def test_escaping_is_a_bijection(local: str) -> None:
    """ADDR-22, ADDR-23: every text has one localpart without forbidden characters, and every localpart one text."""
    localpart = escape_local(local)
    assert not re.search("""[ "&'/:<>@]""", localpart)
    assert unescape_local(localpart) == local
    if not re.search("""[ "&'/:<>@]""", local) and local == local.lower():
        assert escape_local(unescape_local(local)) == local


@given(LOCALS)
@settings(max_examples=500)
def test_jid_and_uri_lead_back_to_each_other(local: str) -> None:
    """ADDR-23: on the local parts that RFC 7622 allows, in both directions and over both kinds of URI."""
    try:
        jid = to_jid(Address.im(local, "bücher.example"))
    except AddressError:
        assume(False)
    address, resource = from_jid(jid)
    assert (to_jid(address), resource) == (jid, "")
    assert Address.parse(address.uri) == address
    assert from_sip_uri(to_sip_uri(address)) == (address, "")
    assert address == Address.im(local, "bücher.example").folded()


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=40))
def test_resource_and_gr_lead_back_to_each_other(resource: str) -> None:
    """ADDR-20, ADDR-21, ADDR-25."""
    address, found = from_jid(f"a@x.example/{resource}")
    assert found == resource
    assert from_sip_uri(to_sip_uri(address, resource)) == (address, resource)


@given(ANY)
@settings(max_examples=500)
def test_any_text_gives_an_address_or_address_error(text: str) -> None:
    for read in (Address.parse, Address.from_any, lambda t: from_jid(t)[0], lambda t: from_sip_uri(t)[0]):
        try:
            address = read(text)
        except AddressError:
            continue
        assert Address.parse(address.uri) == address
        assert address.domain.isascii()
        assert address.domain_u
