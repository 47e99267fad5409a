"""Open listening sockets, and say in a sentence why one cannot be opened.

Place on the path: before step 1, at start only; may block on the file system for some milliseconds.
"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from comity.bindings.base import Listener
from comity.errors import ConfigError

BACKLOG = 1024
LISTENING = "0A"
"""TCP_LISTEN in /proc/net/tcp."""


def open_socket(listener: Listener) -> socket.socket:
    """Bind (and listen, unless UDP) on the address of ``listener``; non-blocking.

    Raises:
        ConfigError: with the listener's URL as key, what is wrong and what to do.
    """
    kind = socket.SOCK_DGRAM if listener.transport == "udp" else socket.SOCK_STREAM
    try:
        found = socket.getaddrinfo(listener.host, listener.port, type=kind, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        cure = "Give an IP address of this machine."
        raise ConfigError(listener.url, f"the host {listener.host!r} has no address: {error}.", cure) from error
    family, _, _, _, address = found[0]
    sock = socket.socket(family, kind)
    try:
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # One listener, one family: [::] and 0.0.0.0 can then both be asked for.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        if kind == socket.SOCK_STREAM:
            sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise _explain(listener, error) from error
    sock.setblocking(False)
    return sock


def _explain(listener: Listener, error: OSError) -> ConfigError:
    code = f"errno {error.errno}, {errno.errorcode.get(error.errno or 0, '?')}"
    if error.errno == errno.EADDRINUSE:
        holder = port_holder(listener.transport, listener.port)
        who = f"by {holder}" if holder else "by another process"
        cure = "Stop that process, or choose another port here."
        return ConfigError(listener.url, f"port {listener.port} is already taken {who} ({code}).", cure)
    if error.errno == errno.EADDRNOTAVAIL:
        cure = "Give an address that `ip address` shows, or 0.0.0.0 for all."
        return ConfigError(listener.url, f"{listener.host} is not an address of this machine ({code}).", cure)
    if error.errno in (errno.EACCES, errno.EPERM):
        cure = "Choose a port above 1023, or give the service CAP_NET_BIND_SERVICE."
        return ConfigError(listener.url, f"this user may not open port {listener.port} ({code}).", cure)
    return ConfigError(listener.url, f"cannot listen there: {os.strerror(error.errno or 0)} ({code}).")


def port_holder(transport: str, port: int) -> str:
    """Name the process that holds a port, as ``kamailio (process 712)``; "" if it cannot be found.

    Reads Linux's /proc; processes of other users can only be looked into by root."""
    table = "udp" if transport == "udp" else "tcp"
    inodes = _inodes(Path(f"/proc/net/{table}"), port) | _inodes(Path(f"/proc/net/{table}6"), port)
    if not inodes:
        return ""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            for descriptor in (process / "fd").iterdir():
                if os.readlink(descriptor) in wanted:
                    name = (process / "comm").read_text(errors="replace").strip()
                    return f"{name} (process {process.name})"
        except OSError:
            # Gone in the meantime, or another user's: look at the next.
            continue
    return ""


def _inodes(table: Path, port: int) -> set[str]:
    """Inodes of the sockets bound to ``port`` (for TCP: listening) in one of the kernel's tables."""
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return set()
    found = set()
    for line in lines:
        fields = line.split()
        is_bound = int(fields[1].rpartition(":")[2], 16) == port
        if is_bound and (fields[3] == LISTENING or table.name.startswith("udp")):
            found.add(fields[9])
    return found
