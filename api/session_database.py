"""A DuckDB database with the one table of a viewer's session, in a process that has given up all.

Apart from `sealed_database`, whose order of locks it keeps, as a viewer may also add columns to its
table, and there are neither files nor views.
"""

import json
import socket
from dataclasses import asdict
from threading import Timer

import duckdb

from api.colouring import TABLE, is_write, read_writes
from api.gate import check_query
from api.jobs import END, Ending, SqlJob, send
from api.sealed_database import WARM_UP, SealedDatabase
from store.errors import QueryError
from store.views import Contents, lock

VIEWS = frozenset({TABLE})

MAX_COLUMNS = 200

COUNT_COLUMNS = f"SELECT count(*) FROM duckdb_columns() WHERE table_name = '{TABLE}'"


class SessionDatabase(SealedDatabase):
    """One table, and the socket that jobs come through."""

    def _open_views(self, contents: Contents, files: socket.socket, max_listed: int) -> None:
        files.close()  # there is nothing to ask for
        self._connection.register("given", contents.rows.pop(TABLE))
        self._connection.execute(f"CREATE TABLE {TABLE} AS FROM given")
        self._connection.unregister("given")
        self._connection.execute(WARM_UP).fetchall()
        lock(self._connection, [])
        self._datasets, self._views = {}, VIEWS

    def _answer(self, job: SqlJob) -> None:
        if not is_write(job.sql):
            super()._answer(job)
            return
        with self._connection.cursor() as cursor:
            timer = Timer(job.timeout_s, cursor.interrupt)
            timer.start()
            try:
                _write(cursor, job.sql)
            finally:
                timer.cancel()
        send(self._jobs, END, json.dumps(asdict(Ending(0, False))).encode())


def _write(cursor: duckdb.DuckDBPyConnection, text: str) -> None:
    """Add columns and fill them, once all of the text has passed; all of it, or nothing.

    Raises:
        QueryError: a part is not allowed, or there are too many columns.
        duckdb.Error: a part fails as it runs.
    """
    for write in (writes := read_writes(text)):
        if write.check is not None:
            check_query(cursor, write.check, VIEWS)
    (n_columns,) = cursor.execute(COUNT_COLUMNS).fetchone() or (0,)
    if n_columns + sum(write.check is None for write in writes) > MAX_COLUMNS:
        raise QueryError(f"the table has {n_columns} columns, at most {MAX_COLUMNS}")
    cursor.begin()
    try:
        # DuckDB alters no table that the same transaction has filled, so columns are added first.
        for write in sorted(writes, key=lambda write: write.check is not None):
            cursor.execute(write.sql)
    except duckdb.Error:
        cursor.rollback()
        raise
    cursor.commit()
