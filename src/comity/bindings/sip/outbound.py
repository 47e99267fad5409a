"""Client-initiated connections (RFC 5626), the registrar's part: is a flow asked for, and may it be had? Pure.

Place on the path: beside step 4, for ``registrar.py``. Every device is reached by the flow it registered on anyway
(``delivery.py``); what this adds is saying so, in the words a phone asks with. One flow a device: a registration of
the same instance with another ``reg-id`` takes the place of the one before.
"""

from __future__ import annotations

from comity.bindings.sip.headers import malformed, parse_number
from comity.bindings.sip.message import SipRequest

OPTION = "outbound"


def asks_for_flow(request: SipRequest) -> bool:
    """True if the REGISTER is for a flow: Supported names outbound, and its Contact has an instance and a reg-id.

    A reg-id without an instance is ignored (RFC 5626 section 6). Raises RemoteProtocolError (hint 400) for a reg-id
    that is none, and for a second Contact beside one that has it.
    """
    contacts = [contact for contact in request.contacts if contact.param("reg-id") is not None]
    for contact in contacts:
        if parse_number(contact.param("reg-id") or "", "reg-id", 2**31 - 1) == 0:
            raise malformed("a reg-id begins with 1")
    if OPTION not in {name.lower() for name in request.listed("supported")}:
        return False
    asking = [contact for contact in contacts if contact.param("+sip.instance")]
    if asking and len(request.contacts) > 1:
        raise malformed("a Contact with a reg-id must stand alone")
    return bool(asking)


def came_directly(request: SipRequest) -> bool:
    """True unless another hop stands between: a flow of its would not be the phone's (else 439)."""
    return len(request.vias) == 1
