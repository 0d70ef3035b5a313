"""Models, heads and maps of an atlas as tables, filtered and sorted by any of their columns.

Apart from the reads of vectors and points, as these answer from the ledger and open no file.
"""

from collections.abc import Sequence

import pyarrow as pa

from store.filters import Filter, order_by, where
from store.opened import OpenAtlas

MODELS = """
SELECT models.*, coalesce(n_sequences, 0) AS n_sequences, coalesce(n_tokens, 0) AS n_tokens
FROM models LEFT JOIN (
    SELECT model, sum(n_sequences)::BIGINT AS n_sequences, sum(n_tokens)::BIGINT AS n_tokens
    FROM shards WHERE status = 'done' GROUP BY model
) USING (model) ORDER BY model
"""

MAPS = """
SELECT current_maps.*, n_points FROM current_maps JOIN (
    SELECT map_id, sum(n_queries + n_keys)::BIGINT AS n_points
    FROM maps WHERE status = 'ok' GROUP BY map_id
) USING (map_id)
"""

PARTS = "SELECT *, n_queries + n_keys AS n_points FROM maps"

HEADS = "SELECT * FROM heads LEFT JOIN head_measures USING (model, layer, head)"


def list_models(atlas: OpenAtlas) -> pa.Table:
    """The models: the columns of `models`, and n_sequences and n_tokens captured of each."""
    return atlas.ask(MODELS)


def list_heads(
    atlas: OpenAtlas,
    model: str | None = None,
    filters: Sequence[Filter] = (),
    sort: Sequence[str] = (),
) -> pa.Table:
    """Heads with their facts and the newest value of each measure, null where there is none.

    Args:
        atlas: to read.
        model: model key; None for all.
        filters: on facts and measures.
        sort: as in `order_by`; ties and the default are model, layer, head.

    Raises:
        NotInAtlasError: there is no such model.
        QueryError: a filter or an order is wrong.
    """
    return _list(atlas, HEADS, model, filters, [*sort, "model", "layer", "head"])


def list_maps(
    atlas: OpenAtlas,
    model: str | None = None,
    filters: Sequence[Filter] = (),
    sort: Sequence[str] = (),
    every_part: bool = False,
) -> pa.Table:
    """Maps with their fidelity: the columns of `maps`, and n_points.

    The row of a map is that of its first part, but n_points, which counts all.

    Args:
        atlas: to read.
        model: model key; None for all.
        filters: on any column.
        sort: as in `order_by`; ties and the default are model, layer, head, method, dims.
        every_part: give every row of `maps`, later parts and failed, dropped and replaced maps
            too, each with its own points; else the rows of `current_maps`.

    Raises:
        NotInAtlasError: there is no such model.
        QueryError: a filter or an order is wrong.
    """
    rows = PARTS if every_part else MAPS
    ties = ["model", "layer", "head", "method", "dims", "map_id", "part"]
    return _list(atlas, rows, model, filters, [*sort, *ties])


def _list(
    atlas: OpenAtlas, rows: str, model: str | None, filters: Sequence[Filter], sort: Sequence[str]
) -> pa.Table:
    """Some of the rows of a query, in order."""
    if model is not None:
        atlas.find_model(model)
        filters = [*filters, Filter("model", "=", model)]
    schema = atlas.ask(f"FROM ({rows}) LIMIT 0").schema
    condition, values = where(filters, schema)
    return atlas.ask(f"FROM ({rows}) WHERE {condition} {order_by(sort, schema)}", values)
