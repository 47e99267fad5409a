"""The one place that chooses a store engine by configuration.

Place on the path: before step 7. The server opens its store here, and so do the commands when no server runs.
"""

from __future__ import annotations

from comity.config import Config
from comity.errors import ConfigError
from comity.service.interfaces import Store
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
