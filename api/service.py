"""The atlas that a server answers from: its newest version, and older ones while cursors last."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock
from time import monotonic

from api.settings import ServeSettings
from store.atlas import Atlas
from store.errors import StaleVersionError
from store.object_store import explained, filesystem
from store.schema import TABLES
from store.snapshot import Snapshot, local_path

LOOK_WHOLE_S = 300.0
"""Seconds after which an atlas on an object store is loaded anew whatever its next commits say:
another may have been built in its place."""

_LOOKERS = 8

log = logging.getLogger("qkatlas.service")

Stamp = tuple[str, ...]


class Service:
    """An open atlas that follows what others write.

    `refresh`, `follow` and `close` are called from one thread at a time, the others from any.
    """

    def __init__(self, settings: ServeSettings) -> None:
        """Open the atlas.

        Raises:
            AtlasNotFoundError: there is none.
            AtlasFormatError: it is damaged, foreign or newer than this program.
        """
        self.settings = settings
        self.uri = str(local_path(settings.atlas) or settings.atlas)
        """Absolute, so that it is found in every message that must not show it."""
        self._lock = Lock()
        self._stamp = _newest_commits(self.uri)
        self._look_again = monotonic() + LOOK_WHOLE_S
        self._current = Atlas(self.uri)
        self._version = self._current.snapshot.version
        self._kept: dict[str, tuple[Atlas, float]] = {}
        _warm(self._current)

    @property
    def current(self) -> tuple[str, Atlas]:
        """The newest version's token and atlas."""
        with self._lock:
            return self._version, self._current

    def at(self, version: str) -> Atlas:
        """The atlas as it was at a version that a cursor names.

        Raises:
            StaleVersionError: it is no longer kept, or never was.
        """
        with self._lock:
            if version == self._version:
                return self._current
            if version in self._kept:
                return self._kept[version][0]
        raise StaleVersionError(
            f"the cursor is of version {version} of the atlas, which is no longer kept: "
            "begin again without a cursor"
        )

    def keep(self, version: str, atlas: Atlas) -> None:
        """Keep a version that a cursor names, `keep_versions_s` from now or from its end."""
        with self._lock:
            self._kept[version] = (atlas, monotonic())

    def refresh(self) -> bool:
        """Go to the newest version, and forget those kept long enough; True where it is new."""
        self._forget_old()
        stamp = _newest_commits(self.uri)
        if stamp and stamp == self._stamp:
            return False
        if not stamp and monotonic() < self._look_again and not _is_overtaken(self._current):
            return False
        self._look_again = monotonic() + LOOK_WHOLE_S
        atlas = Atlas(self.uri)
        version = atlas.snapshot.version
        self._stamp = stamp
        if version == self._version:
            return False
        _warm(atlas)
        with self._lock:
            if self._version in self._kept:
                self._kept[self._version] = (self._current, monotonic())
            # Not closed: requests that run hold it, and the last of them frees it.
            self._version, self._current = version, atlas
        log.info("new version", extra={"fields": {"version": version}})
        return True

    async def follow(self, tell: Callable[[Snapshot], Awaitable[None]]) -> None:
        """Look for a newer version every `refresh_s`, for ever, and tell of each.

        Trouble is logged and the version that is open stays.
        """
        while True:
            await asyncio.sleep(self.settings.refresh_s)
            try:
                if await asyncio.to_thread(self.refresh):
                    await tell(self.current[1].snapshot)
            except Exception as error:  # the next look may go well
                log.error("no newer version could be opened", exc_info=error)

    def close(self) -> None:
        """Free all versions."""
        self._current.close()
        self._kept.clear()

    def _forget_old(self) -> None:
        """Let go of the versions whose cursors have ended."""
        oldest = monotonic() - self.settings.keep_versions_s
        with self._lock:
            for version, (_, since) in list(self._kept.items()):
                if since < oldest and version != self._version:
                    del self._kept[version]


def _warm(atlas: Atlas) -> None:
    """Read the ledgers, so that the first request is fast."""
    atlas.ask("SELECT 1 FROM models")


def _newest_commits(uri: str) -> Stamp:
    """The names of the tables' newest commits, which are cheap to see; empty if not on a disk."""
    root = local_path(uri)
    if root is None:
        return ()
    logs = (root / name / "_delta_log" for name in TABLES)
    return tuple(
        max(
            (_stamp(entry) for entry in os.scandir(log) if entry.name.endswith(".json")), default=""
        )
        for log in logs
        if log.is_dir()
    )


def _is_overtaken(atlas: Atlas) -> bool:
    """Whether a table of an object store has a newer commit: one small request a table."""
    versions = atlas.snapshot.versions
    following = [version + 1 for version in versions.values()]
    with ThreadPoolExecutor(_LOOKERS) as pool:
        return any(pool.map(partial(_has_commit, atlas.uri), versions, following))


def _has_commit(uri: str, table: str, version: int) -> bool:
    with explained(uri):
        where, root = filesystem(uri)
        try:
            where.open_input_file(f"{root}/{table}/_delta_log/{version:020}.json").close()
        except FileNotFoundError:
            return False
    return True


def _stamp(entry: os.DirEntry[str]) -> str:
    """A commit's name, and which file bears it: an atlas may be put in another's place."""
    found = entry.stat()
    return f"{entry.name} {found.st_ino} {found.st_mtime_ns}"
