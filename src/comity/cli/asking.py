"""One administrative request from the command line, carried out where it has to be.

Place on the path: beside it, between the commands and ``admin/access.py``.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec

from comity.admin.access import ask
from comity.admin.requests import Request
from comity.cli.output import fail
from comity.config import read


def carry_out(config_path: Path, request: Request) -> Any:
    """Carry ``request`` out; a refusal ends the command with its sentence and exit code."""
    answer = asyncio.run(ask(read(config_path), request))
    if answer.error:
        fail(answer.error, answer.exit_code)
    return msgspec.json.decode(answer.result)
