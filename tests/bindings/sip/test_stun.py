"""stun.py: keepalives of phones behind a NAT over UDP (RFC 5626 section 4.4.2, RFC 8489)."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.bindings.sip.stun import binding_response, is_stun
from tests.bindings.sip.test_session import CLIENT, SERVER, session

REQUEST = bytes.fromhex("000100002112a442b7e7a701bc34d686fa87dfae")


def test_the_address_is_that_of_rfc_5769() -> None:
    """Section 2.2 of RFC 5769: 192.0.2.1 port 32853."""
    answer = binding_response(REQUEST, ("192.0.2.1", 32853))
    assert answer[:20] == bytes.fromhex("0101000c2112a442b7e7a701bc34d686fa87dfae")
    assert answer[20:] == bytes.fromhex("002000080001a147e112a643")


def test_the_ipv6_address_is_that_of_rfc_5769() -> None:
    """Section 2.3 of RFC 5769."""
    answer = binding_response(REQUEST, ("2001:db8:1234:5678:11:2233:4455:6677", 32853))
    assert answer[20:] == bytes.fromhex("002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9")


@pytest.mark.parametrize("first", ["0011", "0101", "0111", "0003", "3fff"])
def test_other_messages_are_not_answered(first: str) -> None:
    assert binding_response(bytes.fromhex(first) + REQUEST[2:], CLIENT) == b""
    assert is_stun(bytes.fromhex(first) + REQUEST[2:])


@given(st.binary(max_size=80), st.integers(0, 0xFFFF))
def test_broken_lengths_are_not_answered(rest: bytes, length: int) -> None:
    data = REQUEST[:2] + struct.pack("!H", length) + REQUEST[4:] + rest
    assert is_stun(data)
    assert bool(binding_response(data, CLIENT)) is (length == len(rest) and length % 4 == 0)


@pytest.mark.parametrize("data", [b"", b"\x00" * 20, REQUEST[:19], b"OPTIONS sip:a SIP/2.0\r\n\r\n"])
def test_other_datagrams_are_no_stun(data: bytes) -> None:
    assert not is_stun(data)


def test_only_a_proved_address_is_answered() -> None:
    """S-28: 32 octets for 20."""
    one = session("udp", SERVER)
    one.receive_datagram(REQUEST, CLIENT, 0.0)
    assert one.datagrams_to_send(0.0) == []
    one.prove(CLIENT, 0.0)
    one.receive_datagram(REQUEST, CLIENT, 0.0)
    assert one.datagrams_to_send(0.0) == [(binding_response(REQUEST, CLIENT), CLIENT)]
    assert one.next_event() is None
