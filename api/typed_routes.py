"""Models, heads, maps and points: the parts of an atlas that a page is drawn from."""

from typing import Annotated

import pyarrow as pa
from fastapi import APIRouter, Query, Response

from api.parameters import (
    VERSION,
    Filters,
    Model,
    OfModel,
    Sort,
    read_box,
    read_columns,
    read_filters,
    shown,
    shown_page,
)
from api.reading import Paged, Whole
from api.replies import ARROW, encode_texts
from store.listings import list_heads, list_maps, list_models
from store.matrix import read_matrix
from store.points import read_points

router = APIRouter(tags=["maps"])

MAP_ID = "135cc8f89b9b30cb"
POINT = {
    "kind": "query",
    "sequence_id": 0,
    "position": 3,
    "x": 0.25,
    "y": -1.5,
    "rank": 0,
    "token": "python",
    "is_special": False,
}
MATRIX = {
    "version": VERSION,
    "model": "minilm",
    "method": "attention",
    "dims": 2,
    "n_points": 1,
    "tokens": [
        {"kind": "key", "sequence_id": 0, "position": 3, "token": "python", "is_special": False}
    ],
    "heads": [
        {
            "layer": 0,
            "head": 0,
            "map_id": MAP_ID,
            "score_spearman": -0.91,
            "low": [-3.5, -2.0],
            "high": [4.0, 2.25],
            "points": "AIAAgA==",
        }
    ],
}

Method = Annotated[str, Query(description="Method of the maps.", examples=["attention"])]


@router.get(
    "/v1/models",
    response_class=Response,
    summary="Models",
    responses=shown_page({"model": "minilm", "n_layers": 6, "n_heads": 12, "d_head": 32}),
)
def get_models(page: Paged) -> Response:
    """The models, with the settings and size of their capture."""
    return page.reply_slice(list_models(page.atlas))


@router.get(
    "/v1/heads",
    response_class=Response,
    summary="Heads and their measures",
    responses=shown_page({"model": "minilm", "layer": 0, "head": 0, "entropy": 0.92}),
)
def get_heads(
    page: Paged, model: OfModel = None, filter: Filters = None, sort: Sort = None
) -> Response:
    """Heads with their facts and newest measures, filtered and sorted by any of them."""
    return page.reply_slice(list_heads(page.atlas, model, read_filters(filter), sort or ()))


@router.get(
    "/v1/maps",
    response_class=Response,
    summary="Maps and their fidelity",
    responses=shown_page(
        {"map_id": MAP_ID, "model": "minilm", "layer": 0, "head": 0, "method": "attention"}
    ),
)
def get_maps(
    page: Paged,
    model: OfModel = None,
    filter: Filters = None,
    sort: Sort = None,
    every_part: Annotated[
        bool, Query(description="Later parts, and failed, dropped and replaced maps too.")
    ] = False,
) -> Response:
    """Maps that can be drawn, with how true they are."""
    filters = read_filters(filter)
    return page.reply_slice(list_maps(page.atlas, model, filters, sort or (), every_part))


@router.get(
    "/v1/maps/{map_id}/points",
    response_class=Response,
    summary="Points of a map",
    responses=shown_page(POINT),
)
def get_points(
    page: Paged,
    map_id: str,
    columns: Annotated[
        str | None, Query(description="Of points and tokens, comma separated.", examples=["x,y"])
    ] = None,
    filter: Filters = None,
    box: Annotated[str | None, Query(description="x0,x1,y0,y1[,z0,z1]: what is in view.")] = None,
    max_points: Annotated[
        int | None, Query(ge=1, description="A picture of at most so many that keeps density.")
    ] = None,
    dictionary: Annotated[
        bool, Query(description="In Arrow each text once, in a dictionary; as JSON no difference.")
    ] = False,
) -> Response:
    """Points with their tokens, in the drawing order: the first n are a picture of all.

    The column `norm`, of the stored vector, is read only where `columns` names it.
    """
    chosen, filters, view = read_columns(columns), read_filters(filter), read_box(box)
    most = page.settings.scan_bytes

    def read(limit: int, offset: int) -> pa.Table:
        found = read_points(
            page.atlas, map_id, chosen, filters, view, max_points, limit, offset, most
        )
        return encode_texts(found) if dictionary and page.media_type == ARROW else found

    return page.reply_page(read)


@router.get(
    "/v1/models/{model}/matrix",
    response_class=Response,
    summary="All heads of a model in small",
    responses=shown(MATRIX),
)
def get_matrix(
    reading: Whole,
    model: Model,
    method: Method,
    dims: Annotated[int, Query(ge=2, le=3)] = 2,
    max_points: Annotated[int, Query(ge=1, le=100_000, description="Points of each head.")] = 2_000,
    joint: Annotated[
        str | None, Query(description="Joint space of the maps; the newest where left out.")
    ] = None,
) -> Response:
    """The same points of every head's map, their tokens once.

    `points` of a head holds dims little-endian uint16 a token, base64 in JSON: 0 to 65535 spans
    `low` to `high`. In Arrow the reply is one row, `tokens` and `heads` lists of structs.
    """
    found = read_matrix(reading.atlas, model, method, dims, max_points, joint)
    fields = ("model", "method", "dims", "n_points", "tokens", "heads")
    return reading.reply({name: getattr(found, name) for name in fields})
