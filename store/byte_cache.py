"""What reads keep between requests, bounded in bytes for the whole process.

Keys name the atlas and its version: a refreshed snapshot never finds what an older one left.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any

CACHE_BYTES = 256 << 20


class ByteCache:
    """Values under keys; the ones used longest ago go first when the bytes run out."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._held: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._n_bytes = 0
        self._making: dict[Hashable, Lock] = {}
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], tuple[Any, int]]) -> Any:
        """The value of a key; where there is none, `make` gives it and its size in bytes.

        Threads that ask for a missing value wait for one of them to make it. A value larger than
        the whole cache is given and not kept.
        """
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key][0]
            making = self._making.setdefault(key, Lock())
        with making:
            with self._lock:
                if key in self._held:
                    return self._held[key][0]
            try:
                made = make()
                self._keep(key, made)
            finally:
                self._making.pop(key, None)
        return made[0]

    def _keep(self, key: Hashable, made: tuple[Any, int]) -> None:
        with self._lock:
            if made[1] <= self.max_bytes and key not in self._held:
                self._held[key] = made
                self._n_bytes += made[1]
            while self._n_bytes > self.max_bytes:
                self._n_bytes -= self._held.popitem(last=False)[1][1]


CACHE = ByteCache(CACHE_BYTES)
"""The one cache of the process."""
