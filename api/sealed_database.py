"""A DuckDB database over one snapshot in a process that has given up all else.

The order matters: DuckDB connects with a single thread, then paths are forbidden, then its threads
start, as Landlock holds only threads that come later; memory is limited last, from what the process
then holds. Whatever Python or DuckDB load late must be loaded before.
"""

import json
import socket
from dataclasses import asdict
from datetime import UTC, datetime
from io import BytesIO
from threading import Timer

import duckdb
import pyarrow as pa
import pyarrow.fs as pafs

from api.bodies import Body
from api.broker import MAX_OPEN, SCHEME, BrokeredFiles
from api.described import describe_result
from api.gate import check_query
from api.jobs import (
    CHUNK,
    END,
    ERROR,
    FATAL,
    LONGEST_CHUNK,
    READY,
    Limits,
    SqlJob,
    receive,
    receive_start,
    send,
)
from api.sandbox import count_threads, forbid_paths, limit_resources, open_gauge, probe_layers
from store.errors import QueryError
from store.formats import write_result
from store.scan import dataset
from store.views import CLOSED, Contents, create_views, lock

SPARE_FILES = 64
"""Descriptors beside those of the atlas's files."""

BATCH_ROWS = 16_384
MAX_MESSAGE = 4_000

WARM_UP = "SELECT sum(hash(i)) OVER (ORDER BY i DESC) FROM range(100000) t(i) ORDER BY 1 LIMIT 1"
"""Starts DuckDB's threads and its allocator, so that these count as memory at rest."""

SETTINGS = """
SET enable_progress_bar = false; SET TimeZone = 'UTC'; SET parquet_metadata_cache = true;
SET storage_compatibility_version = 'latest'
"""
"""Those that DuckDB does not take as it connects: what is known of a file never changes, and the
gate sees a tree of every statement."""

VIEWS = """
SELECT view_name FROM duckdb_views()
WHERE NOT internal AND NOT temporary AND schema_name = 'main'
"""

SOUND = (QueryError, duckdb.Error, pa.ArrowException, ValueError, TypeError, OverflowError)
"""A statement's own failures; after any other error the worker ends."""

SPOILT = (duckdb.OutOfMemoryException, duckdb.InternalException, duckdb.FatalException, MemoryError)
"""After these the database is not used again."""


class SealedDatabase:
    """Views over a snapshot, and the sockets that jobs and descriptors come through."""

    def __init__(self, jobs: socket.socket, files: socket.socket) -> None:
        duckdb.default_connection().close()  # its threads are older than Landlock
        self._jobs = jobs
        limits, contents = receive_start(jobs)
        self._connection = duckdb.connect(":memory:", config=_configure(limits))
        _load_late_modules()
        gauge = open_gauge()
        n_threads = count_threads()
        forbid_paths()
        self._connection.execute(SETTINGS)
        self._connection.execute(f"SET threads = {limits.threads}")
        self._open_views(contents, files, limits.max_listed_files)
        limit_resources(limits.memory_bytes, MAX_OPEN + SPARE_FILES, gauge)
        self._layers = probe_layers(n_threads)

    def _open_views(self, contents: Contents, files: socket.socket, max_listed: int) -> None:
        brokered = BrokeredFiles(files, contents)
        system = pafs.PyFileSystem(pafs.FSSpecHandler(brokered))
        self._connection.register_filesystem(brokered)
        self._datasets = create_views(
            self._connection,
            contents,
            lambda _, n_files: n_files <= max_listed,
            lambda name, listed: dataset(name, listed, system),
        )
        self._connection.execute(WARM_UP).fetchall()
        lock(self._connection, [SCHEME])
        self._views = frozenset(name for (name,) in self._connection.execute(VIEWS).fetchall())

    def serve(self) -> None:
        """Answer jobs until one leaves the database unsafe to use.

        Raises:
            EOFError: the service is gone.
        """
        send(self._jobs, READY, json.dumps(self._layers).encode())
        sound = True
        while sound:
            _, payload = receive(self._jobs)
            sound = self._run(SqlJob(**json.loads(payload)))

    def _run(self, job: SqlJob) -> bool:
        """Answer one job; True when the next may come."""
        try:
            self._answer(job)
        except OSError:  # of the socket: the service is gone
            raise
        except Exception as error:
            sound = isinstance(error, SOUND) and not isinstance(error, SPOILT)
            send(self._jobs, ERROR if sound else FATAL, _describe(error))
            return sound
        return True

    def _answer(self, job: SqlJob) -> None:
        with self._connection.cursor() as cursor:
            for name, data in self._datasets.items():
                cursor.register(name, data)
            timer = Timer(job.timeout_s, cursor.interrupt)
            timer.start()
            try:
                check_query(cursor, job.sql, self._views)
                body = Body(job, _read(cursor, job))
                for piece in body.pieces():
                    for start in range(0, len(piece), LONGEST_CHUNK):
                        send(self._jobs, CHUNK, memoryview(piece)[start : start + LONGEST_CHUNK])
            finally:
                timer.cancel()
        send(self._jobs, END, json.dumps(asdict(body.ending)).encode())


def _read(cursor: duckdb.DuckDBPyConnection, job: SqlJob) -> pa.RecordBatchReader:
    """The rows of a job's answer, or only their schema."""
    if job.describe:
        return describe_result(cursor, job.sql, job.parameters)
    return cursor.execute(job.sql, job.parameters).to_arrow_reader(BATCH_ROWS)


def _configure(limits: Limits) -> dict[str, str | bool | int | float | list[str]]:
    """Settings of DuckDB: nothing is fetched, spilled or looked up in Python."""
    return {
        **CLOSED,
        "threads": 1,
        "memory_limit": f"{limits.memory_bytes * 4 // 5} B",
        "temp_directory": "",
    }


def _load_late_modules() -> None:
    """Make pyarrow and Python import what they import at a first use, a time zone for example."""
    now = [datetime.now(UTC)]
    times = {zone: pa.array(now, pa.timestamp("us", zone)) for zone in ("UTC", "Etc/UTC")}
    row = pa.table({**times, "list": [[1.5]], "text": ["é"]})
    for format in ("arrow", "json", "csv", "parquet"):
        write_result(row, format, BytesIO())


def _describe(error: Exception) -> bytes:
    """An error as JSON, in DuckDB's words or ours."""
    message, killed = str(error), False
    if isinstance(error, MemoryError | duckdb.OutOfMemoryException):
        killed = True
        message = "the query needs more memory than it may take: ask for less at once"
    elif isinstance(error, duckdb.InterruptException):
        killed, message = True, "the query ran beyond its deadline: ask for less at once"
    elif isinstance(error, duckdb.InternalException | duckdb.FatalException):
        message = f"DuckDB failed: {message.partition(chr(10))[0]}"
    return json.dumps({"message": message[:MAX_MESSAGE], "killed": killed}).encode()
