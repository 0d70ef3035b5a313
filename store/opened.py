"""An open atlas: one snapshot, its views for SQL, and its heads as arrays.

Apart from `atlas`, which adds maps, searches and neighbours on top, so that each of these can be a
module of its own. Typed reads go from the ledger to a list of files to the row groups that hold
the sequences, and never through the SQL views of vectors.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from threading import Lock
from typing import Any, Self, cast

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from store.attention import Doubles, HeadFacts, attention
from store.errors import AtlasFormatError, NotInAtlasError, QueryError
from store.scan import read_sequences, to_matrix
from store.schema import TABLES
from store.snapshot import Snapshot, select
from store.sql import check_query
from store.vectors import Floats, HeadVectors, Ints, Positions
from store.views import Views, open_views, read_contents

Parameters = Sequence[object] | Mapping[str, object]

SEQUENCES = """
SELECT model, corpus, sequence_id, source, row, n_tokens FROM sequences
WHERE model = $model AND corpus = coalesce($corpus, corpus) ORDER BY sequence_id
"""

SPECIAL = """
SELECT is_special FROM rows LEFT JOIN tokens USING (sequence_id, position)
ORDER BY rows.sequence_id, rows.position
"""


@dataclass(frozen=True)
class Attention:
    """Recomputed attention of one head over one sequence, and the tokens at both sides."""

    weights: Doubles  # (n_queries, n_keys)
    query_tokens: list[str | None]
    key_tokens: list[str | None]


class OpenAtlas:
    """A snapshot of an atlas, answered by SQL and as arrays.

    Methods may be called from several threads, `refresh` and `close` from one at a time.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.snapshot = Snapshot.load(uri)
        self._views: Views | None = None
        self._ledgers: Views | None = None
        self._making = Lock()
        self._found: dict[tuple[object, ...], dict[str, Any]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the SQL connections; the next query makes new ones."""
        opened = (self._views, self._ledgers)
        self._views = self._ledgers = None
        for views in opened:
            if views is not None:
                views.close()

    def refresh(self) -> bool:
        """Go to the newest snapshot; True when something changed."""
        newest = Snapshot.load(self.uri)
        if newest.version == self.snapshot.version:
            return False
        self.close()
        self._found = {}
        self.snapshot = newest
        return True

    def sql(self, query: str, parameters: Parameters | None = None) -> pa.Table:
        """The answer of one reading SQL statement.

        Args:
            query: over the views of docs/tables.md.
            parameters: a sequence for `?` and `$1`, a mapping for `$name`.

        Raises:
            QueryError: the statement does not read, or fails; with DuckDB's message.
        """
        with self._cursor() as cursor:
            check_query(cursor, query)
            try:
                return cast(pa.Table, cursor.execute(query, parameters).to_arrow_table())
            except duckdb.Error as error:
                raise QueryError(str(error)) from error

    def ask(self, query: str, parameters: Parameters | None = None) -> pa.Table:
        """The answer of SQL of our own over the tables of rows, however many files there are.

        Args:
            query: over `models`, `heads`, `maps`, `current_maps`, `measures`, `head_measures`,
                `files` and `shards`; never a user's text.
            parameters: as in `sql`.
        """
        with self.ledger_cursor() as cursor:
            return cast(pa.Table, cursor.execute(query, parameters).to_arrow_table())

    def relation(self, query: str) -> duckdb.DuckDBPyRelation:
        """A lazy DuckDB relation of one SELECT, of the snapshot that is open now.

        Raises:
            QueryError: the statement is no SELECT, or does not bind.
        """
        cursor = self._cursor()
        check_query(cursor, query)
        try:
            found = cursor.sql(query)
        except duckdb.Error as error:
            raise QueryError(str(error)) from error
        return found

    def sequences(self, model: str, corpus: str | None = None) -> pa.Table:
        """The sequences of a model, without their text: model, corpus, sequence_id, source, ….

        Raises:
            NotInAtlasError: there is no such model.
        """
        self.find_model(model)
        return self.sql(SEQUENCES, {"model": model, "corpus": corpus})

    def tokens(self, model: str, sequence_ids: Sequence[int] | None = None) -> pa.Table:
        """The tokens of a model's sequences, sorted by (sequence_id, position).

        Raises:
            NotInAtlasError: there is no such model.
        """
        self.find_model(model)
        columns = TABLES["tokens"].file_schema.names
        found = self.read_tokens(model, columns, _sorted_ids(sequence_ids))
        key = pa.array([model], pa.string()).take(pa.array(np.zeros(len(found), np.int32)))
        return found.add_column(0, "model", key)

    def facts(self, model: str, layer: int, head: int) -> HeadFacts:
        """What the head does to query-key products before the softmax.

        Raises:
            NotInAtlasError: there is no such head.
        """
        return _facts(self.find_head(model, layer, head))

    def read_head(
        self, model: str, layer: int, head: int, sequence_ids: Sequence[int] | None = None
    ) -> HeadVectors:
        """Queries and keys of a head, over the sequences named or all.

        Args:
            model: model key.
            layer: from 0.
            head: query head, from 0.
            sequence_ids: in any order; None for all.

        Returns:
            float32 arrays sorted by (sequence_id, position).

        Raises:
            NotInAtlasError: there is no such head, or it lacks one of the sequences.
        """
        row = self.find_head(model, layer, head)
        ids = _sorted_ids(sequence_ids)
        queries, query_at = self._vectors("queries", model, layer, head, ids)
        keys, key_at = self._vectors("keys", model, layer, head, ids)
        return HeadVectors(model, layer, head, _facts(row), queries, query_at, keys, key_at)

    def attention(self, model: str, layer: int, head: int, sequence_id: int) -> Attention:
        """Attention of a head over a sequence, recomputed from the stored vectors.

        Raises:
            NotInAtlasError: there is no such head, or it lacks the sequence.
        """
        vectors = self.read_head(model, layer, head, [sequence_id])
        weights = attention(vectors.queries, vectors.keys, vectors.facts)
        row, ids = self.find_model(model), _sorted_ids([sequence_id])
        sides = [
            self.read_tokens(row[side], ["sequence_id", "position", "token"], ids)[
                "token"
            ].to_pylist()
            for side in ("query_model", "key_model")
        ]
        return Attention(weights, *sides)

    def ledger_cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection to the tables of rows alone, for one thread; the caller closes it."""
        with self._making:
            if self._ledgers is None:
                self._ledgers = open_views(read_contents(self.snapshot, ()))
            return self._ledgers.cursor()

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection to the views, for one query."""
        with self._making:
            if self._views is None:
                self._views = open_views(read_contents(self.snapshot))
            return self._views.cursor()

    def find_model(self, model: str) -> dict[str, Any]:
        """The row of a model."""
        if found := self._find("SELECT * FROM models WHERE model = ?", model):
            return found
        known = self.ask("SELECT model FROM models ORDER BY model")["model"].to_pylist()
        if not known:
            raise NotInAtlasError(f"the atlas {self.uri} holds no model yet; asked for {model}")
        near = get_close_matches(model, known, n=3, cutoff=0.0)
        raise NotInAtlasError(
            f"no model {model} in the atlas {self.uri}, which holds {len(known)}; "
            f"nearest: {', '.join(near)}"
        )

    def find_head(self, model: str, layer: int, head: int) -> dict[str, Any]:
        """The row of a head."""
        query = "SELECT * FROM heads WHERE model = ? AND layer = ? AND head = ?"
        if found := self._find(query, model, layer, head):
            return found
        self.find_model(model)
        query = "SELECT DISTINCT layer, head FROM heads WHERE model = ?"
        known = self.ask(query, [model]).to_pydict()
        raise NotInAtlasError(
            f"no layer {layer}, head {head} of {model}: the atlas holds layers "
            f"{_listed(known['layer'])} and heads {_listed(known['head'])}"
        )

    def _find(self, query: str, *key: object) -> dict[str, Any] | None:
        """The one row of a key, remembered until `refresh`, as every typed read asks for it."""
        if key not in self._found:
            rows = self.ask(query, list(key)).to_pylist()
            if not rows:
                return None
            self._found[key] = rows[0]
        return self._found[key]

    def read_tokens(self, model: str, columns: Sequence[str], ids: Ints | None) -> pa.Table:
        """Columns of a model's tokens, sequence_id and position among them, sorted by these."""
        files = self.snapshot.files("tokens", model=model)
        found = read_sequences("tokens", files, columns, ids)
        order = _order(_ints(found["sequence_id"]), _ints(found["position"]))
        return found if order is None else found.take(pa.array(order))

    def read_side(
        self, table: str, model: str, layer: int, head: int, ids: Ints | None
    ) -> tuple[Ints, Ints, Floats]:
        """The queries or the keys of a query head over sorted sequences, None for all.

        Returns:
            sequence_id and position, by which the rows are sorted, and float32 vectors of shape
            (n, d_head). Sequences that the head lacks are left out.

        Raises:
            NotInAtlasError: there is no such head.
        """
        row = self.find_head(model, layer, head)
        own = {"head": head} if table == "queries" else {"kv_head": row["kv_head"]}
        files = self.snapshot.files(table, model=model, layer=layer, **own)
        found = read_sequences(table, files, ["sequence_id", "position", "vector"], ids)
        sequence_id, position = _ints(found["sequence_id"]), _ints(found["position"])
        vectors = to_matrix(found["vector"], row["d_head"])
        order = _order(sequence_id, position)
        if order is None:
            return sequence_id, position, vectors
        return sequence_id[order], position[order], vectors[order]

    def _vectors(
        self, table: str, model: str, layer: int, head: int, ids: Ints | None
    ) -> tuple[Floats, Positions]:
        """One side of a head: its vectors and where they come from."""
        sequence_id, position, vectors = self.read_side(table, model, layer, head, ids)
        check_found(model, layer, ids, sequence_id)
        side = "query_model" if table == "queries" else "key_model"
        special = self._special(self.find_model(model)[side], sequence_id, position, ids)
        return vectors, Positions(sequence_id, position, special)

    def _special(
        self, model: str, sequence_id: Ints, position: Ints, ids: Ints | None
    ) -> NDArray[np.bool_]:
        """Which of the sorted rows are special tokens of a model."""
        files = self.snapshot.files("tokens", model=model)
        columns = ["sequence_id", "position", "is_special"]
        special = select(
            SPECIAL,
            rows=pa.table({"sequence_id": sequence_id, "position": position}),
            tokens=read_sequences("tokens", files, columns, ids),
        )["is_special"]
        if special.null_count:
            raise AtlasFormatError(
                f"the table tokens lacks {special.null_count} rows of {model} that have vectors: "
                "restore it from a copy, or drop the model and run again"
            )
        return cast(NDArray[np.bool_], special.to_numpy())


def _facts(head: Mapping[str, Any]) -> HeadFacts:
    """The facts in a row of `heads`."""
    bias = head["offset_bias"]
    return HeadFacts(
        scaling=head["scaling"],
        mask=head["mask"],
        window=head["window"],
        soft_cap=head["soft_cap"],
        sink=head["sink"],
        offset_bias=None if bias is None else tuple(bias),
    )


def _sorted_ids(sequence_ids: Sequence[int] | None) -> Ints | None:
    """Distinct sequence ids in order; None stays None, which means all."""
    return None if sequence_ids is None else np.unique(np.asarray(sequence_ids, dtype=np.int64))


def _ints(column: pa.ChunkedArray) -> Ints:
    """A column without nulls as int64, shape (n,)."""
    return cast(Ints, column.to_numpy().astype(np.int64, copy=False))


def _order(sequence_id: Ints, position: Ints) -> Ints | None:
    """The permutation that sorts rows by (sequence_id, position); None where they are sorted."""
    step = np.diff(sequence_id)
    if np.all((step > 0) | ((step == 0) & (np.diff(position) > 0))):
        return None
    return np.lexsort((position, sequence_id))


def check_found(model: str, layer: int, ids: Ints | None, sequence_id: Ints) -> None:
    """Refuse sequences that the head does not hold."""
    missing = np.setdiff1d(ids, sequence_id) if ids is not None else np.empty(0, np.int64)
    if len(missing):
        raise NotInAtlasError(
            f"no sequence {missing[0]} of {model} at layer {layer}"
            f" ({len(missing)} of {0 if ids is None else len(ids)} asked for are missing): "
            "the table sequences lists what is there"
        )


def _listed(values: Iterable[int]) -> str:
    """Numbers as text: `0 to 5` where none is left out, else each."""
    known = sorted(set(values))
    if len(known) > 2 and known[-1] - known[0] + 1 == len(known):
        return f"{known[0]} to {known[-1]}"
    return ", ".join(map(str, known)) or "none"
