"""An atlas that a service holds: the methods of `store.atlas.Atlas`, over HTTP.

Apart from `connection`, which knows how to ask; here is only what there is to ask.
"""

import json
from collections.abc import Sequence
from typing import Any, Self
from urllib.parse import quote

import pyarrow as pa

from api.connection import ARROW, Connection
from store.errors import LimitError, QueryError
from store.filters import Filter
from store.head_attention import HeadAttention, Weight
from store.matrix import Matrix
from store.opened import Attention, Parameters
from store.points import Box
from store.search import Match

SEQUENCE = "SELECT * FROM sequences WHERE model = ? AND sequence_id = ?"
OF_SEQUENCES = ["model", "corpus", "sequence_id", "source", "row", "n_tokens"]

TOKENS = "SELECT * FROM tokens WHERE model = $model {} ORDER BY sequence_id, position"
SOME = "AND sequence_id IN (SELECT unnest($ids::BIGINT[]))"


class RemoteAtlas:
    """An atlas behind the address of a service; it follows the newest version by itself.

    Listings are read to their last page. Errors are those of the local atlas, and these:
    `AtlasNotFoundError` where nothing answers, `ConfigError` for a wrong token, `BusyError` when
    the service stays busy, `ServiceError` when it fails or breaks off.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        """Name a service; nothing is sent yet.

        Args:
            url: as `qkatlas serve` prints it, with or without `/t/TOKEN/`.
            token: in place of the one in `url`, and that in place of QKATLAS_TOKEN.
        """
        self._service = Connection(url, token)
        self.url = self._service.url

    def __repr__(self) -> str:
        return f"RemoteAtlas({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; no question can follow."""
        self._service.close()

    def sql(
        self,
        query: str,
        parameters: Parameters | None = None,
        max_rows: int | None = None,
        max_bytes: int | None = None,
        timeout_s: float | None = None,
    ) -> pa.Table:
        """The whole answer of one reading SQL statement.

        Args:
            query: over the views of docs/tables.md.
            parameters: a sequence for `?` and `$1`, a mapping for `$name`; of numbers, text,
                booleans and None. A list goes as text: `$ids::BIGINT[]` of "[1, 2]".
            max_rows: rows to allow; None for the service's limit.
            max_bytes: bytes to allow; None for the service's limit.
            timeout_s: deadline in seconds; None for the service's.

        Raises:
            QueryError: the statement does not read, or fails; with the service's message.
            LimitError: the answer is longer than allowed.
            QueryKilledError: it took too long, or too much memory.
        """
        limits = {"max_rows": max_rows, "max_bytes": max_bytes, "timeout_s": timeout_s}
        asked = {name: limit for name, limit in limits.items() if limit is not None}
        body = _to_json({"sql": query, "parameters": parameters, "format": "arrow"} | asked)
        reply = self._service.send("POST", "v1/sql", ARROW, body=body)
        found = self._service.read_arrow(reply)
        if reply.headers.get("X-Truncated") == "true":
            raise LimitError(
                f"the answer has more than the {len(found):,} rows that the service sends: ask for "
                "less (LIMIT, fewer columns), or allow more with max_rows=… and max_bytes=…"
            )
        return found

    def models(self) -> pa.Table:
        """The models that have captured sequences."""
        return self._service.get_table("v1/models")

    def heads(
        self, model: str | None = None, filters: Sequence[Filter] = (), sort: Sequence[str] = ()
    ) -> pa.Table:
        """Heads with their facts and, where there are any, their newest measures."""
        return self._service.get_table("v1/heads", {"model": model, **_chosen(filters, sort)})

    def maps(
        self,
        model: str | None = None,
        filters: Sequence[Filter] = (),
        sort: Sequence[str] = (),
        every_part: bool = False,
    ) -> pa.Table:
        """Current maps with their fidelity; with `every_part` all that were ever made."""
        chosen = {"model": model, "every_part": every_part or None, **_chosen(filters, sort)}
        return self._service.get_table("v1/maps", chosen)

    def points(
        self,
        map_id: str,
        columns: Sequence[str] | None = None,
        filters: Sequence[Filter] = (),
        box: Box | None = None,
        max_points: int | None = None,
    ) -> pa.Table:
        """Points of a map with columns of their tokens, in drawing order.

        Args:
            map_id: as `maps` lists it.
            columns: of points and tokens; None for kind, place, rank, token and is_special.
            filters: on any of these columns.
            box: the lowest and highest value of each dimension.
            max_points: the first so many by rank, an even thinning.
        """
        chosen = {
            "columns": ",".join(columns) if columns is not None else None,
            "box": ",".join(str(end) for side in box for end in side) if box else None,
            "max_points": max_points,
            **_chosen(filters),
        }
        return self._service.get_table(f"v1/maps/{quote(map_id, safe='')}/points", chosen)

    def matrix(
        self,
        model: str,
        method: str,
        dims: int = 2,
        max_points: int = 2_000,
        joint: str | None = None,
    ) -> Matrix:
        """The same points of every head's map, their tokens once."""
        chosen = {"method": method, "dims": dims, "max_points": max_points, "joint": joint}
        found = self._service.get_document(f"{_model(model)}/matrix", chosen)
        n_points = found["n_points"][0].as_py()
        return Matrix(model, method, dims, n_points, _rows(found["tokens"]), _rows(found["heads"]))

    def list_sequences(self, model: str, corpus: str | None = None) -> pa.Table:
        """The sequences of a model with the beginnings of their texts, without images."""
        return self._service.get_table(f"{_model(model)}/sequences", {"corpus": corpus})

    def sequences(self, model: str, corpus: str | None = None) -> pa.Table:
        """The sequences of a model, without their text: model, corpus, sequence_id, source, …."""
        return self.list_sequences(model, corpus).select(OF_SEQUENCES)

    def sequence(self, model: str, sequence_id: int) -> pa.Table:
        """One sequence with its whole text, image and labels."""
        found = self.sql(SEQUENCE, [model, sequence_id])
        if not len(found):
            self._service.get_table(f"{_model(model)}/sequences/{sequence_id}")  # says what lacks
        return found

    def tokens(self, model: str, sequence_ids: Sequence[int] | None = None) -> pa.Table:
        """The tokens of a model's sequences, sorted by (sequence_id, position)."""
        parameters, some = {"model": model}, ""
        if sequence_ids is not None:
            parameters["ids"], some = str([int(each) for each in sequence_ids]), SOME
        found = self.sql(TOKENS.format(some), parameters)
        if not len(found):
            self.heads(model)  # says if there is no such model
        return found

    def attention(self, model: str, layer: int, head: int, sequence_id: int) -> Attention:
        """Attention of a head over a sequence, recomputed from the stored vectors."""
        found = self.head_attention(model, layer, head, sequence_id)
        sides = (side["token"].to_pylist() for side in (found.queries, found.keys))
        return Attention(found.weights, *sides)

    def head_attention(
        self,
        model: str,
        layer: int,
        head: int,
        sequence_id: int,
        weight: Weight = "none",
        hidden: Sequence[int] = (),
        hide_special: bool = False,
    ) -> HeadAttention:
        """Attention over a sequence, weighed by value norms and with keys hidden."""
        chosen = {
            "sequence_id": sequence_id,
            "weight": weight,
            "hidden": ",".join(map(str, hidden)),
            "hide_special": hide_special,
        }
        found = self._service.get_document(f"{_head(model, layer, head)}/attention", chosen)
        rows = found["weights"].flatten()
        weights = rows.flatten().to_numpy().reshape(len(rows), -1)
        return HeadAttention(weights, _rows(found["queries"]), _rows(found["keys"]))

    def mean_attention(
        self,
        model: str,
        layer: int,
        head: int,
        max_position: int = 64,
        max_sequences: int = 200,
    ) -> pa.Table:
        """Attention from position to position, averaged over sequences that have both."""
        chosen = {"max_position": max_position, "max_sequences": max_sequences}
        return self._service.get_table(f"{_head(model, layer, head)}/mean_attention", chosen)

    def nearest_keys(
        self, model: str, layer: int, head: int, sequence_id: int, position: int, k: int = 10
    ) -> pa.Table:
        """The keys of the whole head that a query scores highest, best first."""
        chosen = {"sequence_id": sequence_id, "position": position, "k": k}
        return self._service.get_table(f"{_head(model, layer, head)}/nearest_keys", chosen)

    def nearest_queries(
        self, model: str, layer: int, head: int, sequence_id: int, position: int, k: int = 10
    ) -> pa.Table:
        """The queries of the whole head that score a key highest, best first."""
        chosen = {"sequence_id": sequence_id, "position": position, "k": k}
        return self._service.get_table(f"{_head(model, layer, head)}/nearest_queries", chosen)

    def search(self, model: str, text: str, match: Match = "exact", case: bool = True) -> pa.Table:
        """Where tokens with a text are."""
        chosen = {"text": text, "match": match, "case": case}
        return self._service.get_table(f"{_model(model)}/tokens/search", chosen)

    def count_tokens(
        self, model: str, text: str, match: Match = "exact", case: bool = True
    ) -> pa.Table:
        """Tokens with a text and how often each is there, most frequent first."""
        chosen = {"text": text, "match": match, "case": case}
        return self._service.get_table(f"{_model(model)}/tokens/count", chosen)


def _rows(column: pa.Array) -> pa.Table:
    """The rows that a document of one row holds as a list."""
    return pa.Table.from_struct_array(column.flatten())


def _model(model: str) -> str:
    return f"v1/models/{quote(model, safe='')}"


def _head(model: str, layer: int, head: int) -> str:
    return f"{_model(model)}/layers/{layer}/heads/{head}"


def _chosen(filters: Sequence[Filter], sort: Sequence[str] = ()) -> dict[str, Any]:
    """Filters and order as parameters of a request."""
    return {"filter": [_to_text(each) for each in filters], "sort": list(sort)}


def _to_text(one: Filter) -> str:
    """A filter as `column:operator:value`."""
    if one.value is None:
        return f"{one.column}:{one.operator}"
    value = str(one.value)
    if isinstance(one.value, list | tuple | set | frozenset):
        if any("," in str(each) for each in one.value):
            raise QueryError(f"{one.column}: a value with a comma cannot be sent; ask in SQL")
        value = ",".join(map(str, one.value))
    return f"{one.column}:{one.operator}:{value}"


def _to_json(body: dict[str, Any]) -> bytes:
    """A request's body."""
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise QueryError(f"a parameter cannot be sent as JSON: {error}") from error
