"""What the page `/atlas/` lists: models, the layers of one, and its heads with their maps.

Apart from the routes, as these are questions to the ledger. A model may have thousands of heads, so
a page shows those of one layer, or a part of all.
"""

from typing import Any, Literal

from pydantic import BaseModel, Field

from store.atlas import Atlas
from store.errors import NotInAtlasError
from store.filters import Filter

N_POINTS = 20_000
MAX_POINTS = 50_000
OFFERED = (5_000, N_POINTS, MAX_POINTS)
"""How many points a session may show."""

PAGE_HEADS = 48
"""Heads of a page: layers of most models have fewer."""

FIGURES = (
    ("score_spearman", "score order", "rank correlation of distance and score; best −1"),
    ("top_key_recall_3", "top key", "share of queries whose top key is among the 3 nearest"),
    ("trustworthiness", "trust", "share of neighbours on the map that are true neighbours"),
    ("continuity", "continuity", "share of true neighbours that the map keeps"),
)
"""Fidelity of a map: its column, what the page calls it, what it means."""

FACTS = {"model", "layer", "head", "kv_head", "d_head", "scaling", "mask", "window", "soft_cap"}
FACTS |= {"sink", "offset_bias", "family"}

SHOWN_MEASURES = 6
"""Measures that stand beside a head; the others open on demand."""


class Choice(BaseModel):
    """What the page's address asks for; anything else in it is left alone."""

    model: str = Field(default="", max_length=200)
    layer: str = Field(default="", pattern=r"^(\d{1,6}|all)?$")
    method: str = Field(default="", max_length=50)
    sort: str = Field(default="", max_length=200)
    order: Literal["up", "down"] = "down"
    page: int = Field(default=1, ge=1, le=1_000_000)
    points: int = Field(default=N_POINTS, ge=1, le=MAX_POINTS)


def read_page(atlas: Atlas, choice: Choice) -> dict[str, Any]:
    """What the page shows for a choice, with the choice as it was filled in.

    Raises:
        NotInAtlasError: the model has no maps, or is not there.
    """
    maps = atlas.maps().to_pylist()
    models = sorted({row["model"] for row in maps})
    if choice.model and choice.model not in models:
        raise NotInAtlasError(f"no maps of a model {choice.model} in this atlas")
    if not models:
        return {"models": [], "choice": choice.model_dump()}
    model = choice.model or models[0]
    of_model = [row for row in maps if row["model"] == model]
    layers = sorted({row["layer"] for row in of_model})
    layer = choice.layer or str(layers[0])
    chosen = [
        row
        for row in of_model
        if (layer == "all" or row["layer"] == int(layer)) and choice.method in ("", row["method"])
    ]
    heads = _list_heads(atlas, model, layer, choice, chosen)
    n_pages = max(1, -(-len(heads) // PAGE_HEADS))
    page = min(choice.page, n_pages)
    return {
        "models": models,
        "layers": layers,
        "methods": sorted({row["method"] for row in of_model}),
        "measures": sorted({name for head in heads for name in head["measures"]}),
        "figures": FIGURES,
        "choice": {**choice.model_dump(), "model": model, "layer": layer, "page": page},
        "heads": heads[(page - 1) * PAGE_HEADS : page * PAGE_HEADS],
        "n_heads": len(heads),
        "n_maps": len(chosen),
        "n_pages": n_pages,
        "offered": sorted({*OFFERED, choice.points}),
    }


def _list_heads(
    atlas: Atlas, model: str, layer: str, choice: Choice, maps: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The heads that have maps, each with these and its measures; those without a value last."""
    filters = [] if layer == "all" else [Filter("layer", "=", int(layer))]
    by_head: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in maps:
        by_head.setdefault((row["layer"], row["head"]), []).append(row)
    heads = [
        _describe_head(row, by_head[at], choice.sort)
        for row in atlas.heads(model, filters).to_pylist()
        if (at := (row["layer"], row["head"])) in by_head
    ]
    sign = 1 if choice.order == "up" else -1

    def place(head: dict[str, Any]) -> tuple[bool, float]:
        value = head["measures"].get(choice.sort)
        return value is None, 0.0 if value is None else sign * value

    return sorted(heads, key=place) if choice.sort else heads


def _describe_head(row: dict[str, Any], maps: list[dict[str, Any]], sort: str) -> dict[str, Any]:
    """One head as the page shows it; first the measure that it is sorted by."""
    found = {name: row[name] for name in row if name not in FACTS and _is_number(row[name])}
    names = sorted(found, key=lambda name: (name != sort, name))
    return {
        "layer": row["layer"],
        "head": row["head"],
        "measures": found,
        "first": [(name, found[name]) for name in names[:SHOWN_MEASURES]],
        "more": [(name, found[name]) for name in names[SHOWN_MEASURES:]],
        "maps": maps,
    }


def _is_number(value: object) -> bool:
    """True for finite numbers; a measure that is not defined is null or NaN."""
    return isinstance(value, float) and value - value == 0
