"""One head: its attention over a sequence or on average, and who is nearest to whom."""

from collections.abc import Callable
from typing import Annotated, Any

import pyarrow as pa
from fastapi import APIRouter, Query, Response

from api.parameters import (
    VERSION,
    Head,
    Layer,
    Model,
    OneSequence,
    read_positions,
    shown,
    shown_page,
)
from api.reading import Paged, Reading, Whole
from store.attention_pictures import MAX_SIDE, read_pictures
from store.head_attention import Weight, read_attention
from store.mean_attention import mean_attention
from store.nearest import nearest_keys, nearest_queries

LAYER = "/v1/models/{model}/layers/{layer}"
HEAD = f"{LAYER}/heads/{{head}}"

router = APIRouter(tags=["heads"])

QUERY = {
    "sequence_id": 4294967296,
    "position": 7,
    "token": "python",
    "is_special": False,
    "score": 4.25,
}
KEY = {**QUERY, "value_norm": 1.5}
TOKEN = {"position": 0, "token": "[CLS]", "is_special": True}
ATTENTION = {
    "version": VERSION,
    "queries": [TOKEN],
    "keys": [TOKEN],
    "weights": [[1.0]],
}
PICTURE = {
    "layer": 0,
    "head": 0,
    "n_queries": 1,
    "n_keys": 1,
    "n_rows": 1,
    "n_columns": 1,
    "weights": "/w==",
}

WEIGHT_BYTES = 8

Position = Annotated[int, Query(ge=0, lt=1 << 31, examples=[3])]
Count = Annotated[int, Query(ge=1, le=10_000, description="How many, best first.")]


@router.get(
    f"{LAYER}/attention",
    response_class=Response,
    summary="Attention of all heads in small",
    responses=shown_page(PICTURE),
)
def get_pictures(
    page: Paged,
    model: Model,
    layer: Layer,
    sequence_id: OneSequence,
    max_side: Annotated[
        int, Query(ge=1, le=MAX_SIDE, description="Most rows and columns of a picture.")
    ] = 48,
) -> Response:
    """Attention of each query head of a layer over one sequence, as a small picture.

    `weights` is a byte a cell, row by row, base64 in JSON; 255 is weight 1. A cell is the highest
    weight of a block of ceil(n_queries / max_side) queries and ceil(n_keys / max_side) keys.
    """
    limit = page.settings.scan_bytes
    return page.reply_slice(read_pictures(page.atlas, model, layer, sequence_id, max_side, limit))


@router.get(
    f"{HEAD}/attention",
    response_class=Response,
    summary="Attention",
    responses=shown(ATTENTION),
)
def get_attention(
    reading: Whole,
    model: Model,
    layer: Layer,
    head: Head,
    sequence_id: OneSequence,
    weight: Annotated[
        Weight, Query(description="value_norm weighs keys by the norm of their values.")
    ] = "none",
    hidden: Annotated[
        str, Query(description="Key positions to leave out; rows sum to 1 again.")
    ] = "",
    hide_special: Annotated[bool, Query(description="Leave out special tokens too.")] = False,
    first_query: Annotated[
        int, Query(ge=0, lt=1 << 31, description="The first query with a row.")
    ] = 0,
    n_queries: Annotated[
        int | None, Query(ge=1, lt=1 << 31, description="How many rows; all where left out.")
    ] = None,
) -> Response:
    """Attention of a head over a sequence, recomputed from its vectors: a row a query.

    `first_query` and `n_queries` give a part of the rows; keys are always all. In Arrow the reply
    is one row, `queries` and `keys` lists of structs.
    """
    found = read_attention(
        reading.atlas,
        model,
        layer,
        head,
        sequence_id,
        weight,
        read_positions(hidden),
        hide_special,
        first_query,
        n_queries,
        max_weights=reading.settings.max_bytes // WEIGHT_BYTES,
    )
    weights = list(found.weights)
    return reading.reply({"queries": found.queries, "keys": found.keys, "weights": weights})


@router.get(
    f"{HEAD}/mean_attention",
    response_class=Response,
    summary="Attention by position",
    responses=shown_page(
        {"query_position": 1, "key_position": 0, "weight": 0.25, "n_sequences": 200}
    ),
)
def get_mean_attention(
    page: Paged,
    model: Model,
    layer: Layer,
    head: Head,
    max_position: Annotated[int, Query(ge=1, le=1_024)] = 64,
    max_sequences: Annotated[int, Query(ge=1, le=10_000)] = 200,
) -> Response:
    """Attention from position to position, averaged over sequences that have both."""
    found = mean_attention(page.atlas, model, layer, head, max_position, max_sequences)
    return page.reply_slice(found)


@router.get(
    f"{HEAD}/nearest_keys",
    response_class=Response,
    summary="Keys of the highest score for a query",
    responses=shown_page(KEY),
)
def get_nearest_keys(
    reading: Whole,
    model: Model,
    layer: Layer,
    head: Head,
    sequence_id: OneSequence,
    position: Position,
    k: Count = 10,
) -> Response:
    """Exactly the k keys, over the whole head, that the query scores highest."""
    return _reply_nearest(reading, nearest_keys, model, layer, head, sequence_id, position, k)


@router.get(
    f"{HEAD}/nearest_queries",
    response_class=Response,
    summary="Queries of the highest score for a key",
    responses=shown_page(QUERY),
)
def get_nearest_queries(
    reading: Whole,
    model: Model,
    layer: Layer,
    head: Head,
    sequence_id: OneSequence,
    position: Position,
    k: Count = 10,
) -> Response:
    """Exactly the k queries, over the whole head, that score the key highest."""
    return _reply_nearest(reading, nearest_queries, model, layer, head, sequence_id, position, k)


def _reply_nearest(reading: Reading, find: Callable[..., pa.Table], *what: Any) -> Response:
    return reading.reply_rows(find(reading.atlas, *what, scan_bytes=reading.settings.scan_bytes))
