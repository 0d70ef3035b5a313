"""Bodies of SQL replies, made batch by batch up to a number of rows and bytes. Runs in a worker."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa

from api.jobs import Ending, SqlJob
from store.errors import QueryError
from store.formats import write_result

LONGEST_KIND = 80
"""Characters of a message in which DuckDB names its kind."""

Encode = Callable[[pa.RecordBatch], bytes]
Measure = Callable[[pa.RecordBatch], int]


@dataclass
class Body:
    """The answer of a job: iterate over `pieces`, then `ending` says what was written."""

    job: SqlJob
    reader: pa.RecordBatchReader
    n_rows: int = 0
    n_bytes: int = 0
    truncated: bool = False
    _sink: io.BytesIO = field(default_factory=io.BytesIO)

    @property
    def ending(self) -> Ending:
        """The counts, complete once `pieces` has ended."""
        return Ending(self.n_rows, self.truncated)

    def pieces(self) -> Iterator[bytes]:
        """The body in the job's format.

        Raises:
            QueryError: a column's type does not exist in the format.
        """
        writers = {
            "arrow": self._write_arrow,
            "json": self._write_json,
            "csv": self._write_csv,
            "parquet": self._write_parquet,
        }
        yield from writers[self.job.format]()

    def _write_arrow(self) -> Iterator[bytes]:
        with pa.ipc.new_stream(self._sink, self.reader.schema) as writer:

            def encode(batch: pa.RecordBatch) -> bytes:
                writer.write_batch(batch)
                return self._take()

            self.n_bytes += len(head := self._take())
            yield head
            # Measured, as a dictionary that was encoded is not encoded again.
            yield from self._fill(encode, pa.ipc.get_record_batch_size)
        yield self._take()

    def _write_json(self) -> Iterator[bytes]:
        def encode(batch: pa.RecordBatch) -> bytes:
            lines = self._format(batch)[2:-3]  # without "[\n" and "\n]\n"
            return (b",\n" if self.n_rows else b"\n") + lines

        yield b"["
        yield from self._fill(encode)
        yield b"\n]\n"

    def _write_csv(self) -> Iterator[bytes]:
        head = self._format(self.reader.schema.empty_table())
        self.n_bytes += len(head)
        yield head
        yield from self._fill(lambda batch: self._format(batch)[len(head) :])

    def _write_parquet(self) -> Iterator[bytes]:
        kept: list[pa.RecordBatch] = []

        def keep(batch: pa.RecordBatch) -> bytes:
            kept.append(batch)
            self.n_bytes += batch.nbytes
            return b""

        for _ in self._fill(keep, lambda batch: int(batch.nbytes)):
            pass
        yield self._format(pa.Table.from_batches(kept, self.reader.schema))

    def _fill(self, encode: Encode, measure: Measure | None = None) -> Iterator[bytes]:
        """Encoded batches until a limit is reached; the last batch is cut to what fits."""
        for batch in self._batches():
            left = self.job.max_rows - self.n_rows
            self.truncated = batch.num_rows > left
            piece, n_rows = self._fit(batch.slice(0, left), encode, measure)
            if n_rows:
                yield piece
                self.n_rows += n_rows
                self.n_bytes += len(piece)
            if self.truncated:
                return

    def _batches(self) -> Iterator[pa.RecordBatch]:
        """The batches; what DuckDB says of a later one comes through Arrow as an OSError."""
        try:
            yield from self.reader
        except (OSError, pa.ArrowException) as error:
            raise _to_duckdb_error(str(error)) from None

    def _fit(
        self, batch: pa.RecordBatch, encode: Encode, measure: Measure | None
    ) -> tuple[bytes, int]:
        """As many of a batch's first rows as the limit on bytes leaves room for."""
        n_rows, room = batch.num_rows, self.job.max_bytes - self.n_bytes
        while n_rows:
            rows = batch.slice(0, n_rows)
            piece = b"" if measure else encode(rows)
            size = measure(rows) if measure else len(piece)
            if size <= room:
                return piece or encode(rows), n_rows
            self.truncated = True
            n_rows = max(0, min(n_rows - 1, n_rows * room // size))
        return b"", 0

    def _format(self, rows: pa.RecordBatch | pa.Table) -> bytes:
        table = rows if isinstance(rows, pa.Table) else pa.Table.from_batches([rows])
        write_result(table, self.job.format, self._sink)
        return self._take()

    def _take(self) -> bytes:
        """What was written since the last call."""
        written = self._sink.getvalue()
        self._sink.seek(0)
        self._sink.truncate()
        return written


def _to_duckdb_error(message: str) -> Exception:
    """The error that a message of DuckDB's stands for."""
    kinds: dict[str, type[Exception]] = {
        "INTERRUPT": duckdb.InterruptException,
        "Out of Memory": duckdb.OutOfMemoryException,
        "INTERNAL": duckdb.InternalException,
    }
    named = (kind for text, kind in kinds.items() if text in message[:LONGEST_KIND])
    return next(named, QueryError)(message)
