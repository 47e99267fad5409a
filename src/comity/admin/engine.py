"""The one place that chooses a store engine by configuration.

Place on the path: before step 7. The server opens its store here, and so do the commands when no server runs;
``comity recover`` has a damaged one salvaged here.
"""

from __future__ import annotations

from pathlib import Path

from comity.config import Config
from comity.errors import ConfigError
from comity.service.envelope import operation_of, unpack
from comity.service.interfaces import Record, Store
from comity.service.routing import is_lane_of
from comity.store.salvage import Salvage, salvage
from comity.store.sqlite import SqliteStore


async def open_store(config: Config) -> Store:
    """Open the configured store under its process lock.

    Raises:
        StoreError: another process holds it, or the directory cannot be used.
        StoreDamaged: its file fails its own checks; nothing was changed.
        ConfigError: the engine is not built yet.
    """
    if config.store.engine == "sqlite":
        limits = config.limits
        return await SqliteStore.open(
            config.server.data,
            min_free=limits.disk_free,
            disk_warn=limits.disk_warn,
            disk_refuse=limits.disk_refuse,
        )
    key = "store.engine"
    problem = f'"{config.store.engine}" is not available in this version.'
    raise ConfigError(key, problem, 'Write engine = "sqlite".', where=config.where(key))


def recover(config: Config, target: Path) -> Salvage:
    """Save what the damaged store of ``config`` still holds into a new one in ``target``.

    Raises:
        StoreError: a server runs, ``target`` is not empty, or the store is not one of ours.
    """
    return salvage(config.server.data, target, _is_whole)


def _is_whole(record: Record) -> bool:
    """True if the octets are those that were accepted (SHA-256), and the envelope names the lane's owner."""
    try:
        operation = operation_of(record, unpack(record.envelope))
    except Exception:  # whatever a spoilt row raises, it is not whole
        return False
    return is_lane_of(record.lane, operation)
