"""comity.cpim.address: im: and pres: URIs, JIDs and SIP URIs."""

from __future__ import annotations

import pytest

from comity.cpim.address import Address, escape_local, from_jid, from_sip_uri, to_jid, to_sip_uri, unescape_local
from comity.errors import AddressError


class TestUri:
    """RFC 3860 appendix A, RFC 3859 appendix A."""

    @pytest.mark.parametrize(
        ("uri", "local", "domain"),
        [
            ("im:fred@example.com", "fred", "example.com"),
            ("im:fred@example.com?subject=x", "fred", "example.com"),
            ("im:a@b.example?from=im:evil@x.example", "a", "b.example"),
            ("IM:f%72ed@EX.com", "fred", "ex.com"),
            ("im:Fred@ex.com.", "Fred", "ex.com"),
            ("pres:t%C3%BC@bücher.example", "tü", "xn--bcher-kva.example"),
            ("im:a%40b%2Fc%25@x.example", "a@b/c%", "x.example"),
            ("im:a@[2001:DB8:0::1]", "a", "[2001:db8::1]"),
            ("im:a@127.0.0.1", "a", "127.0.0.1"),
            ("im:a@localhost", "a", "localhost"),
        ],
    )
    def test_parts_are_decoded(self, uri: str, local: str, domain: str) -> None:
        """ADDR-1, ADDR-2, ADDR-4."""
        address = Address.parse(uri)
        assert (address.local, address.domain) == (local, domain)
        assert Address.parse(address.uri) == address

    @pytest.mark.parametrize(
        "uri",
        [
            "",
            "im:",
            "im:@example.com",
            "im:fred@",
            "im:fred",
            "im:?subject=x",
            "sip:fred@example.com",
            "fred@example.com",
            "im:a@evil.example@good.example",
            "im:a%@x.example",
            "im:a%zz@x.example",
            "im:%FF@x.example",
            "im:%C0%AF@x.example",
            "im:%00@x.example",
            "im:%C2%85@x.example",
            "im:a b@x.example",
            "im:a\r\nb@x.example",
            "im:a#b@x.example",
            'im:"a"@x.example',
            "im:a@x_y.example",
            "im:a@-x.example",
            "im:a@x..example",
            "im:a@.",
            "im:a@x.example:5060",
            "im:a@x%2Eexample",
            "im:a@[::1",
            "im:a@[::1%25eth0]",
            "im:a@300.1.1.1",
            "im:a@1.2.3",
            "im:a@" + "x" * 64 + ".example",
            "im:a@" + "x." * 130 + "example",
            "im:" + "a" * 1024 + "@x.example",
            "im:" + "%C3%BC" * 512 + "@x.example",
            "im:a@\u2488.example",
            "im:\ud800@x.example",
        ],
    )
    def test_other_text_is_no_address(self, uri: str) -> None:
        """ADDR-1; nothing else than AddressError is ever raised."""
        with pytest.raises(AddressError):
            Address.parse(uri)

    def test_key_compares_local_part_exactly_and_domain_without_case(self) -> None:
        """ADDR-4, SEC-19."""
        keys = {Address.parse(uri).key for uri in ("im:f%72ed@EX.com", "im:fred@ex.com", "im:fred@ex.com.")}
        assert len(keys) == 1
        assert Address.parse("im:Fred@ex.com").key not in keys
        assert Address.parse("pres:fred@ex.com").key not in keys
        assert Address.parse("im:Fred@ex.com").folded().key in keys

    def test_unsafe_characters_are_percent_encoded(self) -> None:
        address = Address.im('a b@c/d?e#f%g^{|}`\\"<>é', "X.example")
        assert address.uri == "im:a%20b%40c%2Fd%3Fe%23f%25g%5E%7B%7C%7D%60%5C%22%3C%3E%C3%A9@x.example"
        assert Address.parse(address.uri) == address
        assert str(address.with_scheme("pres")) == "pres" + address.uri[2:]

    def test_domain_is_shown_with_u_labels(self) -> None:
        """ADDR-26, I18N-4."""
        assert Address.im("a", "BÜCHER。example").domain == "xn--bcher-kva.example"
        assert Address.parse("im:a@XN--bcher-KVA.example").domain_u == "bücher.example"
        assert Address.parse("im:a@xn--a.example").domain_u == "xn--a.example"


class TestAnyUri:
    """C-22: one user, several schemes."""

    @pytest.mark.parametrize(
        "uri",
        [
            "im:o'malley@x.example",
            "pres:o%27malley@X.example",
            "sip:o'malley@x.example:5060;transport=tcp?Subject=x",
            "SIPS:o%27malley@x.example",
            "xmpp:o%5c27malley@x.example/phone?message;body=x#f",
            "xmpp://guest@z.example/o%5C27malley@x.example",
        ],
    )
    def test_schemes_lead_to_the_same_address(self, uri: str) -> None:
        assert Address.from_any(uri) == Address.im("o'malley", "x.example")

    @pytest.mark.parametrize(
        "uri", ["tel:+15551234", "mailto:a@x.example", "a@x.example", "", "xmpp", "xmpp:x.example"]
    )
    def test_other_schemes_are_refused(self, uri: str) -> None:
        with pytest.raises(AddressError):
            Address.from_any(uri)


class TestJid:
    """RFC 7622 and RFC 7247 sections 6.2 to 6.5."""

    @pytest.mark.parametrize(
        ("sip", "jid"),
        [
            ("sip:f%C3%BC@sip.example", "fü@sip.example"),
            ("sip:o'malley@sip.example", r"o\27malley@sip.example"),
            ("sip:foo@sip.example;gr=bar", "foo@sip.example/bar"),
            ("sip:a%3Ab@x.example", r"a\3ab@x.example"),
            ("sip:a%20%22%3C%3E%40@x.example", r"a\20\22\3c\3e\40@x.example"),
        ],
    )
    def test_sip_to_xmpp(self, sip: str, jid: str) -> None:
        """ADDR-21, ADDR-22: the vectors of RFC 7247 section 6.4 and more."""
        address, gr = from_sip_uri(sip)
        assert to_jid(address) + (f"/{gr}" if gr else "") == jid
        assert from_jid(jid) == (address, gr)

    @pytest.mark.parametrize(
        ("jid", "sip"),
        [
            (r"m\26m@xmpp.example", "sip:m&m@xmpp.example"),
            ("tschüss@xmpp.example", "sip:tsch%C3%BCss@xmpp.example"),
            ("baz@xmpp.example/qux", "sip:baz@xmpp.example;gr=qux"),
            ("a#%[\\]^`{|}@xmpp.example", "sip:a%23%25%5B%5C%5D%5E%60%7B%7C%7D@xmpp.example"),
            ("Juliet@EXÄMPLE.com.", "sip:juliet@xn--exmple-cua.com"),
            ("a@x.example/é; @", "sip:a@x.example;gr=%C3%A9%3B%20%40"),
        ],
    )
    def test_xmpp_to_sip(self, jid: str, sip: str) -> None:
        """ADDR-20, ADDR-26: the vectors of RFC 7247 section 6.5 and more."""
        address, resource = from_jid(jid)
        assert to_sip_uri(address, resource) == sip
        assert from_sip_uri(sip) == (address, resource)

    def test_jid_is_split_before_anything_is_mapped(self) -> None:
        """ADDR-25."""
        address, resource = from_jid("a@b.example/c@d/e")
        assert (address.uri, resource) == ("im:a@b.example", "c@d/e")

    def test_xmpp_shows_u_labels(self) -> None:
        """ADDR-26."""
        assert to_jid(Address.parse("im:Juliet@xn--exmple-cua.com")) == "juliet@exämple.com"

    @pytest.mark.parametrize(
        "jid",
        [
            "example.com",
            "@example.com",
            "a@",
            "a@b.example/",
            "a@b.example/" + "x" * 1024,
            "a@b.example/\x07",
            "a" * 1024 + "@b.example",
            "a b@b.example",
            "a&b@b.example",
            "a'b@b.example",
            "a:b@b.example",
            "a<b@b.example",
            'a"b@b.example',
            "a\u200bb@b.example",
            "＠@b.example",
            "a@b@c.example",
            "\ud800@b.example",
            "a@\ud800",
        ],
    )
    def test_other_text_is_no_jid(self, jid: str) -> None:
        """ADDR-25, ADDR-26."""
        with pytest.raises(AddressError):
            from_jid(jid)

    @pytest.mark.parametrize("local", ["a\u200bb", "@" * 400, "\u00a0"])
    def test_local_part_that_xmpp_cannot_hold(self, local: str) -> None:
        with pytest.raises(AddressError):
            to_jid(Address.im(local, "x.example"))

    @pytest.mark.parametrize(
        ("local", "localpart"),
        [
            ("a\\b", "a\\b"),
            ("\\20", "\\5c20"),
            ("\\5c20", "\\5c5c20"),
            ("a\\5cb", "a\\5cb"),
            ("\\5c@", "\\5c\\40"),
            ("\\@", "\\\\40"),
            ("\\\\40", "\\\\5c40"),
        ],
    )
    def test_backslashes_that_would_read_as_escapes(self, local: str, localpart: str) -> None:
        """ADDR-22, ADDR-23."""
        assert escape_local(local) == localpart
        assert unescape_local(localpart) == local


class TestSipUri:
    """RFC 3261 section 19.1."""

    @pytest.mark.parametrize(
        ("uri", "expected"),
        [
            ("sip:alice:secret@x.example", "im:alice@x.example"),
            ("sip:a;b?c/d@x.example", "im:a%3Bb%3Fc%2Fd@x.example"),
            ("sip:a@[::1]:5060", "im:a@[::1]"),
            ("sips:+15551234@x.example;user=phone", "im:+15551234@x.example"),
        ],
    )
    def test_only_user_and_host_count(self, uri: str, expected: str) -> None:
        address, gr = from_sip_uri(uri)
        assert (address.uri, gr) == (expected, "")
        assert from_sip_uri(to_sip_uri(address))[0] == address

    def test_temporary_gruu_gives_no_resource(self) -> None:
        """ADDR-24."""
        assert from_sip_uri("sip:a@x.example;gr")[1] == ""
        assert from_sip_uri("sip:a@x.example;transport=tcp;GR=urn:uuid:1")[1] == "urn:uuid:1"

    @pytest.mark.parametrize(
        "uri",
        [
            "sip:x.example",
            "sip:@x.example",
            "sip:a@x.example:port",
            "sip:a@x.example:",
            "sip:a@[::1]5060",
            "sip:a@b@x.example",
            "sip:a@x.example;gr=%FF",
            "sip:a@x.example;gr=%00",
            "sip:a@x.example;gr=" + "x" * 1024,
            "tel:+1555",
            "sip:" + "a" * 20000 + "@x.example",
        ],
    )
    def test_other_text_is_no_sip_address(self, uri: str) -> None:
        with pytest.raises(AddressError):
            from_sip_uri(uri)
