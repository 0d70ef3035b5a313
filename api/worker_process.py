"""One worker as the service sees it: a process, two sockets, and whether it may go on."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Self

from api.broker import Broker
from api.jobs import (
    CHUNK,
    END,
    ERROR,
    FATAL,
    HEADER,
    JOB,
    LONGEST_CHUNK,
    LONGEST_HEAD,
    READY,
    Ending,
    SqlJob,
    SqlReply,
    frame,
    to_error,
)
from api.sandbox import LAYERS
from store.errors import AtlasError, QueryKilledError

COMMAND = (sys.executable, "-I", "-m", "api.worker")
SESSION_COMMAND = (sys.executable, "-I", "-m", "api.session_worker")
"""Of a worker over one table of a viewer."""

ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "OPENBLAS_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "_RJEM_MALLOC_CONF": "background_thread:false",
}
"""All that a worker knows of the environment; but for the first, so that nobody starts threads."""

TOO_LATE = "the query ran beyond its deadline of {:g} s: ask for less at once"
DIED = (
    "the query ended its worker, by the memory that it took or a fault in DuckDB: "
    "ask for less at once"
)

SPARE_BYTES = 2 * LONGEST_CHUNK
"""Of a reply beyond its limit: its head and end, and counts."""

PROBE = (sys.executable, "-I", "-m", "api.sandbox")

START_S = 60.0
"""Seconds within which a worker must be ready."""

GRACE_S = 0.4
"""Seconds after a deadline within which a worker may end a query by itself."""

GONE = (asyncio.IncompleteReadError, OSError)


@dataclass
class WorkerProcess:
    """A worker that is ready, or runs one job."""

    process: subprocess.Popen[bytes]
    version: str
    layers: dict[str, bool]
    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter
    is_sound: bool = True
    """False once it was killed, has died, or is about to."""

    @classmethod
    async def start(
        cls,
        version: str,
        frames: Sequence[bytes],
        paths: Sequence[str],
        open_file: Callable[[str], int],
        command: Sequence[str] | None = None,
    ) -> Self:
        """A process that has given up its rights and opened its views.

        Args:
            version: of the snapshot.
            frames: that start a worker, from `send_start`.
            paths: of the snapshot's files, in the order of its contents.
            open_file: gives a descriptor of one.
            command: what to run; None for a worker over an atlas.

        Raises:
            QueryKilledError: it did not get ready.
        """
        jobs, its_jobs = socket.socketpair()
        files, its_files = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=jobs, limit=LONGEST_CHUNK)
        with its_jobs, its_files:
            process = subprocess.Popen(
                [*(command or COMMAND), str(its_jobs.fileno()), str(its_files.fileno())],
                pass_fds=(its_jobs.fileno(), its_files.fileno()),
                env=ENVIRONMENT,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=None if os.environ.get("QKATLAS_DEBUG") else subprocess.DEVNULL,
                start_new_session=True,
            )
        Broker(files, paths, open_file)
        worker = cls(process, version, {}, reader, writer)
        try:
            async with asyncio.timeout(START_S):
                writer.writelines(frames)
                kind, payload = await worker._receive()
                if kind != READY:
                    raise ConnectionError
                worker.layers = json.loads(payload)
        except (*GONE, TimeoutError) as error:
            await worker.kill()
            raise QueryKilledError("a SQL worker did not start: see the server's log") from error
        except asyncio.CancelledError:
            await worker.kill()
            raise
        return worker

    @property
    def is_alive(self) -> bool:
        """True while its process runs."""
        return self.process.poll() is None

    async def run(self, job: SqlJob) -> AsyncGenerator[bytes | Ending]:
        """Pieces of the body, then its ending; the worker is killed unless it came that far.

        Raises:
            QueryError: the statement is refused or fails.
            QueryKilledError: it ran beyond its deadline or memory, or the worker died.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + job.timeout_s + GRACE_S
        killer = loop.call_at(deadline, self.process.kill)  # however slowly the client reads
        left, ended = job.max_bytes + SPARE_BYTES, False
        try:
            self._writer.write(frame(JOB, job.to_bytes()))
            while not ended:
                kind, payload = await self._receive()
                left -= len(payload)
                answer = _read_answer(kind, payload) if left >= 0 else None
                if answer is None:
                    raise ConnectionError
                ended = kind in (END, ERROR)
                if isinstance(answer, AtlasError):
                    raise answer
                yield answer
        except GONE as error:
            late = loop.time() >= deadline
            raise QueryKilledError(TOO_LATE.format(job.timeout_s) if late else DIED) from error
        finally:
            killer.cancel()
            if not ended:
                await self.kill()

    async def _receive(self) -> tuple[bytes, bytes]:
        kind, length = HEADER.unpack(await self._reader.readexactly(HEADER.size))
        if length > (LONGEST_CHUNK if kind == CHUNK else LONGEST_HEAD):
            raise ConnectionError
        return kind, await self._reader.readexactly(length)

    async def kill(self) -> None:
        """End it at once."""
        self.is_sound = False
        self.process.kill()
        self._writer.close()
        await asyncio.shield(asyncio.to_thread(self.process.wait))


async def collect(items: AsyncGenerator[str | bytes | Ending], version: str = "") -> SqlReply:
    """A whole answer from the pieces of its body and its ending.

    Args:
        items: what a worker's job gives, and maybe the version that it was over; closed at the end.
        version: of the atlas, where the items do not tell.
    """
    pieces: list[bytes] = []
    ending = Ending(0, False)
    async with aclosing(items):
        async for item in items:
            if isinstance(item, bytes):
                pieces.append(item)
            elif isinstance(item, Ending):
                ending = item
            else:
                version = item
    return SqlReply(b"".join(pieces), ending.n_rows, ending.truncated, version)


async def find_layers() -> dict[str, bool]:
    """Which layers of the sandbox a worker would have here, long before the first is ready."""
    probe = await asyncio.create_subprocess_exec(*PROBE, stdout=subprocess.PIPE, env=ENVIRONMENT)
    said, _ = await probe.communicate()
    return {**dict.fromkeys(LAYERS, False), **json.loads(said or "{}")}


def _read_answer(kind: bytes, payload: bytes) -> bytes | Ending | AtlasError | None:
    """What a frame of a worker holds; None where it is none of ours."""
    if kind == CHUNK:
        return payload
    try:
        if kind == END:
            return Ending(**json.loads(payload))
        return to_error(payload) if kind in (ERROR, FATAL) else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
