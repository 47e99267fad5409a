"""The common language: addresses, message/cpim objects, operations (RFC 3859-3862)."""

from comity.cpim.address import Address
from comity.cpim.header import CpimHeader, NamedAddress
from comity.cpim.message import CpimLimits, CpimMessage, check_profile, new_message_id
from comity.cpim.operations import MimeObject
from comity.errors import MalformedMessage

__all__ = [
    "Address",
    "CpimHeader",
    "CpimLimits",
    "CpimMessage",
    "MalformedMessage",
    "MimeObject",
    "NamedAddress",
    "check_profile",
    "new_message_id",
]
