"""Mutated statements through gate and worker: `python -m tests.api.worker_fuzz 100000`."""

import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from api.pool import Pool
from store.errors import QueryError, QueryKilledError
from tests.api.fuzz import mutate
from tests.api.small_pool import hash_files, make_atlas, make_job, running_pool

N_CLIENTS = 2


async def fuzz_pool(pool: Pool, seeds: Iterable[int]) -> Counter[str]:
    """How many mutated statements were answered, refused and killed; any other error is raised."""
    counts: Counter[str] = Counter()
    left = iter(seeds)
    await asyncio.gather(*(_ask(pool, left, f"client {n}", counts) for n in range(N_CLIENTS)))
    return counts


async def _ask(pool: Pool, seeds: Iterator[int], client: str, counts: Counter[str]) -> None:
    for seed in seeds:
        try:
            await pool.run(make_job(mutate(seed), timeout_s=1.0), client)
            counts["answered"] += 1
        except QueryError:
            counts["refused"] += 1
        except QueryKilledError:
            counts["killed"] += 1


async def main() -> None:
    """Fuzz a small atlas; ends with an error where one of its files changed."""
    n_statements = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as folder:
        atlas = make_atlas(Path(folder))
        before = hash_files(atlas)
        async with running_pool(atlas) as pool:
            print(dict(await fuzz_pool(pool, range(n_statements))))
        sys.exit(0 if hash_files(atlas) == before else "a file of the atlas changed")


if __name__ == "__main__":
    asyncio.run(main())
