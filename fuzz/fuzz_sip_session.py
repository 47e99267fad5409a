#!/usr/bin/env python3
"""A SIP server session over UDP and TCP: what a stranger gets is SIP, one datagram at most, no longer than his own (S-28)."""

from __future__ import annotations

from run import run

from comity.bindings.sip.events import RequestReceived
from comity.bindings.sip.session import SessionSettings, SipSession

SETTINGS = SessionSettings(methods=frozenset({"MESSAGE", "REGISTER", "OPTIONS"}))
NEAR, FAR = ("192.0.2.200", 5060), ("198.51.100.7", 5090)


def refuse_all(session: SipSession) -> None:
    while (event := session.next_event()) is not None:
        if isinstance(event, RequestReceived):
            session.respond(event.id, 404, 0.0)


def one_input(data: bytes) -> None:
    udp = SipSession(SETTINGS, "udp", NEAR)
    udp.receive_datagram(data, FAR, 0.0)
    refuse_all(udp)
    answers = udp.datagrams_to_send(0.0)
    assert len(answers) <= 1
    for octets, address in answers:
        assert address == FAR
        assert len(octets) <= len(data)
        assert octets.startswith(b"SIP/2.0 ") or not octets.strip()
    tcp = SipSession(SETTINGS, "tcp", NEAR, FAR)
    for piece in (data[: len(data) // 2], data[len(data) // 2 :]):
        tcp.receive_data(piece, 0.0)
        refuse_all(tcp)
    for octets in tcp.data_to_send(0.0):
        assert octets.startswith(b"SIP/2.0 ") or not octets.strip(), octets
    tcp.receive_eof(1.0)
    tcp.handle_timer(64.0)


if __name__ == "__main__":
    run(one_input)
