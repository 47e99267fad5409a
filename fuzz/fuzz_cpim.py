#!/usr/bin/env python3
"""Atheris target: any octets give a message/cpim view or MalformedMessage, nothing else, in every reader of ``comity.cpim``.

python fuzz/fuzz_cpim.py -max_len=4096 CORPUS_DIR
"""

from __future__ import annotations

from run import run

from comity.cpim.address import Address, from_jid, from_sip_uri, to_jid
from comity.cpim.entity import cpim_view, from_chain, is_secured, split_entity
from comity.cpim.imdn import is_report
from comity.cpim.message import CpimMessage, check_profile
from comity.cpim.native import plain_text, readable_part
from comity.cpim.operations import MimeObject
from comity.cpim.scan import scan_headers
from comity.errors import AddressError, MalformedMessage


def one_input(data: bytes) -> None:
    obj = MimeObject.of("message/cpim", data)
    for given in (obj, MimeObject.of("multipart/signed; boundary=next", data)):
        is_secured(given), is_report(given), plain_text(given), readable_part(given)
    try:
        list(scan_headers([data[:7], data[7:]]))
    except MalformedMessage:
        pass
    try:
        cpim_view(split_entity(data, allow_lf=True))
    except MalformedMessage:
        pass
    text = data.decode("utf-8", "replace")
    for read in (Address.parse, Address.from_any, from_jid, from_sip_uri):
        try:
            read(text)
        except AddressError:
            pass
    try:
        message = CpimMessage.parse(data)
        assert message.raw is data or message.raw == data
        message.subjects, message.subject("fr"), message.date_time, message.message_id, message.unknown_requirements
        from_chain(message)
        check_profile(message)
        assert message.from_ is not None
        to_jid(Address.from_any(message.from_.uri))
    except (MalformedMessage, AddressError):
        pass


if __name__ == "__main__":
    run(one_input)
