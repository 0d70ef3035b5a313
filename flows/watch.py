"""`qkatlas status --watch`: how fast an atlas grows, what waits, and what went wrong, look by look.

Only the ledgers are read, and only after they have changed, so that to watch costs a run nothing.
Any machine that can read the atlas may watch it; neither Ray nor Prefect is asked.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from flows.throughput import Throughput
from store.errors import AtlasError
from store.snapshot import Snapshot, select

_SHARDS = """
SELECT status, count(*) AS n_shards, coalesce(sum(n_tokens), 0)::BIGINT AS n_tokens,
    coalesce(sum(n_rejects), 0)::BIGINT AS n_rejects, coalesce(sum(bytes), 0)::BIGINT AS bytes
FROM shards GROUP BY status
"""

_WORKERS = """
SELECT worker, sum(n_tokens)::BIGINT AS n_tokens, sum(seconds) AS seconds
FROM shards WHERE status = 'done' AND worker <> '' GROUP BY worker ORDER BY worker
"""

_FAILURES = """
SELECT what, coalesce(reason, 'no reason given') AS reason, count(*) AS n FROM (
    SELECT 'shard' AS what, reason FROM shards WHERE status = 'quarantined'
    UNION ALL SELECT 'map' AS what, reason FROM maps WHERE status = 'failed')
GROUP BY ALL ORDER BY n DESC, what DESC, reason
"""

_MAPS = """
WITH captured AS (SELECT model, count(DISTINCT (layer, head)) AS total FROM heads
    WHERE model IN (SELECT model FROM shards WHERE status = 'done') GROUP BY model)
SELECT model || ': ' || method || ' ' || dims || '-D maps' AS what,
    count(DISTINCT (layer, head)) AS done, any_value(total) AS total
FROM maps JOIN captured USING (model) WHERE status = 'ok' AND part = 0
GROUP BY model, method, dims ORDER BY model, method, dims
"""

_MEASURES = """
WITH captured AS (SELECT DISTINCT model, layer, head FROM heads
    WHERE model IN (SELECT model FROM shards WHERE status = 'done')),
measured AS (SELECT DISTINCT model, layer, head, true AS is_measured FROM measures)
SELECT model || ': measures' AS what, count(is_measured) AS done, count(*) AS total
FROM captured LEFT JOIN measured USING (model, layer, head)
GROUP BY model HAVING count(is_measured) > 0 ORDER BY model
"""

LEDGERS = ("shards", "maps", "measures", "heads")
"""Tables that a look depends on."""


@dataclass(frozen=True)
class Part:
    """How far one kind of work on the heads of a model is."""

    what: str
    done: int
    total: int


@dataclass(frozen=True)
class Trouble:
    """Units of work that were given up for one reason."""

    what: str
    reason: str
    n: int


@dataclass(frozen=True)
class Contents:
    """What the ledgers of an atlas say at one moment."""

    n_shards: dict[str, int] = field(default_factory=dict)
    """Shards of each status."""
    n_tokens: dict[str, int] = field(default_factory=dict)
    """Tokens of each status; of planned shards those expected."""
    n_rejects: int = 0
    """Rows that could not be read, of done shards."""
    bytes: int = 0
    """Of done shards."""
    workers: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Tokens, and seconds of work, of each worker whose shards are done."""
    parts: tuple[Part, ...] = ()
    troubles: tuple[Trouble, ...] = ()

    @property
    def done(self) -> int:
        """Tokens captured."""
        return self.n_tokens.get("done", 0)

    @property
    def waiting(self) -> int:
        """Tokens that wait for capture, as planned."""
        return self.n_tokens.get("planned", 0)

    @property
    def n_waiting(self) -> int:
        """Shards that wait for capture."""
        return self.n_shards.get("planned", 0)

    @property
    def n_given_up(self) -> int:
        """Units of work that were given up."""
        return sum(trouble.n for trouble in self.troubles)


@dataclass(frozen=True)
class Look:
    """What is to be shown after one look."""

    contents: Contents
    rate: float | None
    """Tokens a second; None as long as nothing was seen to be done."""
    time_left_s: float | None
    active: dict[str, float]
    """Workers whose shards became done since the first look, each with its tokens a second."""
    lost_sight: str = ""
    """Why the newest look failed, so that this is an older one; empty where it did not."""


def read_contents(snapshot: Snapshot) -> Contents:
    """What the ledgers of a snapshot say."""
    tables = {
        "shards": snapshot.newest_shards(),
        "maps": snapshot.newest_maps(),
        "heads": snapshot.rows("heads"),
        "measures": snapshot.rows("measures"),
    }

    def ask(query: str) -> list[dict[str, Any]]:
        return list(select(query, **tables).to_pylist())

    shards = {row["status"]: row for row in ask(_SHARDS)}
    done = shards.get("done", {})
    return Contents(
        {status: row["n_shards"] for status, row in shards.items()},
        {status: row["n_tokens"] for status, row in shards.items()},
        done.get("n_rejects", 0),
        done.get("bytes", 0),
        {row["worker"]: (row["n_tokens"], row["seconds"]) for row in ask(_WORKERS)},
        tuple(Part(**row) for row in ask(_MAPS) + ask(_MEASURES)),
        tuple(Trouble(**row) for row in ask(_FAILURES)),
    )


class Watch:
    """Looks at one atlas again and again."""

    def __init__(self, uri: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Look at nothing yet.

        Args:
            uri: of the atlas.
            clock: gives seconds.
        """
        self._uri = uri
        self._clock = clock
        self._versions: dict[str, int] = {}
        self._contents: Contents | None = None
        self._first: Contents | None = None
        self._throughput = Throughput()
        self._was_done = False

    def look(self) -> Look:
        """The atlas as it is now; what cannot be read after a first look is told in the look.

        Raises:
            AtlasError: the first look fails.
        """
        said = ""
        try:
            contents = self._read()
        except (AtlasError, OSError) as error:
            if self._contents is None:
                raise
            contents, said = self._contents, str(error).partition("\n")[0]
        if self._was_done and contents.waiting:
            self._throughput.begin_anew()
        self._was_done = not contents.waiting
        self._throughput.add(self._clock(), contents.done)
        rate, left = self._throughput.rate(), self._throughput.time_left(contents.waiting)
        return Look(contents, rate, left, self._find_active(contents), said)

    def _read(self) -> Contents:
        """The ledgers, read anew only where one of them has changed."""
        snapshot = Snapshot.load(self._uri)
        versions = {name: snapshot.versions[name] for name in LEDGERS}
        if self._contents is None or versions != self._versions:
            self._contents, self._versions = read_contents(snapshot), versions
            self._first = self._first or self._contents
        return self._contents

    def _find_active(self, contents: Contents) -> dict[str, float]:
        before = self._first.workers if self._first else {}
        found = {}
        for worker, (n_tokens, seconds) in contents.workers.items():
            old_tokens, old_seconds = before.get(worker, (0, 0.0))
            if n_tokens > old_tokens:
                found[worker] = (n_tokens - old_tokens) / max(seconds - old_seconds, 1e-9)
        return found
