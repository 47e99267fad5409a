"""APEX's glue, the relay of RFC 3340: listeners wanted, sessions made, their events handed to the part that knows what to do.

Place on the path: between steps 3 and 4, and 7 and 8. One ``Connection`` a client. The parts: ``attachments.py`` (who is here),
``submission.py`` (the way up), ``delivery.py`` (the way down), ``service_data.py`` (what services say and are told), ``mesh.py`` and
``relaying.py`` (other relays). What is promised stands there.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from comity import sasl
from comity.bindings.apex import events
from comity.bindings.apex.attachments import Attachments
from comity.bindings.apex.config import ApexConfig
from comity.bindings.apex.delivery import EndpointDelivery
from comity.bindings.apex.elements import Attach, Bind, Data, Error, Ok, StatusResponse, Terminate
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.ground import Connection, Ground
from comity.bindings.apex.interfaces import WellKnown
from comity.bindings.apex.mapping import PROTOCOL
from comity.bindings.apex.report import ReportService
from comity.bindings.apex.session import ApexOptions, ApexSession
from comity.bindings.apex.submission import Submissions
from comity.bindings.base import Link, Listener, Network
from comity.cpim.address import Address
from comity.cpim.operations import Response
from comity.errors import AddressError
from comity.service.interfaces import Delivery, Origin, ScramKeys, Service

LOOPBACK = ("127.0.0.0/8", "::1/128")
"""Networks that may always sign in without TLS: nothing of it leaves the machine."""


def well_known() -> list[WellKnown]:
    """The services behind our well-known endpoints."""
    return [ReportService()]
