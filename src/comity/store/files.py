"""The store's directory: private, local, held by one process, and remembering that a store was there.

Before anything is opened: the directory must be ours alone (0700) and on a local disk, since neither locks nor
fsync can be trusted on a network file system. ``store.lock`` is held (flock) for as long as the process has the
store open and names its pid. ``store.epoch`` is the witness: the highest epoch, a count of starts, that was ever
durable in the database. A database that is missing or knows only an older epoch was lost or exchanged.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from comity.errors import StoreDamaged, StoreError

DATABASE = "comity.db"
LOCK = "store.lock"
WITNESS = "store.epoch"

NETWORK = frozenset(
    (
        *(
            "9p",
            "afs",
            "beegfs",
            "ceph",
            "cifs",
            "coda",
            "fuse.ceph",
            "fuse.glusterfs",
            "fuse.s3fs",
            "fuse.sshfs",
            "gfs2",
        ),
        *("gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "prl_fs", "pvfs2", "smb3", "smbfs", "vboxsf"),
        "vmhgfs",
    )
)
"""File system types, as /proc/self/mountinfo names them, whose locks or fsync are another machine's promise."""


def prepare(directory: Path) -> None:
    """Make or check the directory: 0700, ours, local."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = directory.stat().st_mode & 0o777
    except OSError as error:
        raise StoreError(f"The data directory {directory} cannot be used: {error.strerror}.") from error
    if mode & 0o077:
        raise StoreError(
            f"The data directory {directory} is open to others (mode {mode:o}). Run: chmod 700 {directory}"
        )
    kind = file_system(directory)
    if kind in NETWORK:
        raise StoreError(
            f"The data directory {directory} is on a network file system ({kind}), where neither locks nor fsync keep "
            "a message safe. Choose a directory on a local disk."
        )


def file_system(directory: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """Name the file system type ``directory`` is on; "" where the system does not say (no /proc)."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    where = str(directory.resolve()) + "/"
    best, kind = -1, ""
    for line in lines:
        left, _, right = line.partition(" - ")
        fields, names = left.split(), right.split()
        if len(fields) < 5 or not names:
            continue
        point = fields[4].encode().decode("unicode_escape").rstrip("/") + "/"  # a blank is written \040
        if where.startswith(point) and len(point) >= best:  # the later of two at one place hides the earlier
            best, kind = len(point), names[0]
    return kind


def sync_directory(directory: Path) -> None:
    """Make the directory's entries durable."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class ProcessLock:
    """Held by the one process that has the store of ``directory`` open."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOCK
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._handle, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(self._handle)
            raise StoreError(
                f"The store in {directory} is in use by process {holder} (lock file {self._path}). Stop that process first."
            ) from error
        os.ftruncate(self._handle, 0)
        with contextlib.suppress(OSError):  # the pid is only for people; a full disk must not keep a server down
            os.pwrite(self._handle, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let another process have the store."""
        os.close(self._handle)


def witness(directory: Path) -> int:
    """Read the highest epoch this directory's database ever had; 0 if there was none."""
    path = directory / WITNESS
    try:
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}.") from error
    if not (text.isascii() and text.isdigit()):
        raise StoreDamaged(str(path), f"it holds {text[:32]!r} instead of a number", _ON_PURPOSE.format(path=path))
    return int(text)


def witness_or_zero(directory: Path) -> int:
    """As ``witness``, where an unreadable one is no reason to stop: 0."""
    try:
        return witness(directory)
    except StoreError:
        return 0


def bear_witness(directory: Path, epoch: int) -> None:
    """Keep ``epoch``, atomically and durably."""
    new = directory / (WITNESS + ".new")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(handle, f"{epoch}\n".encode())
        os.fsync(handle)
    finally:
        os.close(handle)
    new.rename(directory / WITNESS)
    sync_directory(directory)


_ON_PURPOSE = (
    "Put the newest backup back, or save what is left by: comity recover --to DIRECTORY. Only if this is meant (a "
    "backup put back, a new beginning), remove {path} and start again."
)


def check_present(directory: Path) -> bool:
    """True if there is a database to open, False if there never was one.

    Raises:
        StoreDamaged: there was one, and its main file is gone, empty or without its log.
    """
    path = directory / DATABASE
    log = directory / (DATABASE + "-wal")
    epoch = witness(directory)
    cure = _ON_PURPOSE.format(path=directory / WITNESS)
    if not path.exists():
        if log.exists() and log.stat().st_size:
            raise StoreDamaged(str(path), f"it is gone, but its log {log.name} is there", cure)
        if epoch:
            raise StoreDamaged(str(path), f"it is gone, but this directory had a store (epoch {epoch})", cure)
        return False
    if path.stat().st_size == 0:
        raise StoreDamaged(str(path), "it is empty (0 octets)", cure)
    return True


def check_epoch(directory: Path, epoch: int) -> None:
    """Raise StoreDamaged if the database is older than the one this directory last had."""
    seen = witness(directory)
    if epoch < seen:
        raise StoreDamaged(
            str(directory / DATABASE),
            f"it is an older copy (epoch {epoch}, but epoch {seen} was durable here)",
            _ON_PURPOSE.format(path=directory / WITNESS),
        )
