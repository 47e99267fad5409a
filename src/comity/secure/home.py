"""``COMITY_HOME`` as a place for files: private, written whole, one writer at a time.

Place on the path: beside it; below ``keystore.py``, ``contacts.py`` and ``clock.py``, which say what lies in it. The rules
their readers must keep: directories are 0700 and files 0600 from their first moment; a file is there whole, old or new,
never half, whatever is killed when; whoever reads something to write it again holds ``locked()``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from comity.cpim.address import Address
from comity.errors import SecurityError

ParsedT = TypeVar("ParsedT")

MAX_FILE = 1024 * 1024
"""Octets of a file that may hold keys or certificates."""
MAX_NAME = 200
"""File systems take names of 255 octets; a suffix has to fit too."""


def default_home() -> Path:
    """``COMITY_HOME``, or ~/.local/share/comity."""
    return Path(os.environ.get("COMITY_HOME") or Path.home() / ".local" / "share" / "comity")


def file_name(address: Address) -> str:
    """The im: address without its scheme, all but letters and digits percent-encoded; ``im:`` before it makes a URI again."""
    name = f"{quote(address.local, safe='')}@{address.domain}"
    if len(name) > MAX_NAME:
        raise SecurityError(f"{str(address)[:64]}… is too long an address to keep a key for.")
    return name


class Home:
    """The files of one user.

    Args:
        path: the directory; made on the first write. None: ``default_home()``.

    Every method raises SecurityError with a sentence for what the system refuses.
    """

    def __init__(self, path: Path | str | None = None) -> None:
        self.path = default_home() if path is None else Path(path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from changing what is read and written again inside; waits for them. Not reentrant."""
        try:
            _private(self.path)
            descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SecurityError(f"{self.path} cannot be written: {error.strerror}.") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # the kernel gives it back when a holder dies
            yield
        finally:
            os.close(descriptor)

    def exists(self, folder: str, name: str) -> bool:
        """True if there is such a file."""
        return (self.path / folder / name).exists()

    def files(self, folder: str, suffix: str) -> list[Path]:
        """Files of a folder whose names end so, in the order of their names."""
        try:
            return sorted(file for file in (self.path / folder).iterdir() if file.name.endswith(suffix))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise SecurityError(f"{self.path / folder} cannot be read: {error.strerror}.") from error

    def read(self, file: Path) -> bytes:
        """The octets of a file that is not larger than ``MAX_FILE``."""
        try:
            with file.open("rb") as source:
                data = source.read(MAX_FILE + 1)
        except OSError as error:
            raise SecurityError(f"{file} cannot be read: {error.strerror}.") from error
        if len(data) > MAX_FILE:
            raise SecurityError(f"{file} is larger than {MAX_FILE // 1024} KiB: it is no key or certificate.")
        return data

    def parsed(self, file: Path, parse: Callable[[bytes], ParsedT]) -> ParsedT:
        """What ``parse`` makes of a file; its SecurityError gets the name of the file, and what to do."""
        data = self.read(file)
        try:
            return parse(data)
        except SecurityError as error:
            raise SecurityError(f"{file} is damaged: restore or remove it. {error}") from error

    def write(self, folder: str, name: str, data: bytes) -> Path:
        """Write a file of mode 0600 whole or not at all: under another name, synced, renamed, the directory synced."""
        directory = self.path / folder
        temporary = directory / f".{name[:100]}.{os.getpid()}"  # ends like none of our files
        try:
            for made in (self.path, directory):
                _private(made)
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(directory / name)
            _sync(directory)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise SecurityError(f"{directory / name} cannot be written: {error.strerror}.") from error
        return directory / name

    def remove(self, folder: str, name: str) -> None:
        """Remove a file; none there is as good."""
        try:
            (self.path / folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise SecurityError(f"{self.path / folder / name} cannot be removed: {error.strerror}.") from error

    def version(self, *folders: str) -> tuple[int, ...]:
        """Changes whenever a file of ``folders`` is written or removed: for readers that keep what they read."""
        found = []
        for folder in folders:
            try:
                found.append((self.path / folder).stat().st_mtime_ns)
            except OSError:
                found.append(0)
        return tuple(found)


def _private(directory: Path) -> None:
    """Make a directory nobody else may look into, and close one that was open."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.stat().st_mode & 0o777 != 0o700:
        directory.chmod(0o700)


def _sync(directory: Path) -> None:
    """Make a rename in ``directory`` outlive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
