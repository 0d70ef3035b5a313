"""What a projection method is: a fit of points, and a transform that places further ones.

Each method is a file `method_<name>.py` with one `Method`, and a line in `pipeline.maps.METHODS`.
What methods share lies here too: their libraries, and the state of a map that was not a formula.
"""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.neighbours import Points, merge_duplicates
from pipeline.settings import MapSpec
from store.vectors import Floats

State = dict[str, NDArray[Any]]
"""Named arrays of numbers, as `numpy.savez` writes them; never objects."""

EXACT_POINTS = 50_000
"""Distinct points up to which neighbours are exact; above, the library approximates them."""

MIN_POINTS = 5
"""Distinct points, or dims + 2 if more, below which a neighbour graph says nothing."""

_ROUNDING = 1e-3
"""Rounding error that kept vectors may have, as a share of their spread; both root mean square."""


@dataclass(frozen=True)
class Fitted:
    """Points placed by a method."""

    coordinates: Floats
    """float32, (n_queries + n_keys, dims), in the order of `Points.vectors`."""
    state: State
    """What `transform` needs, and no more; it is kept beside the lake for every map."""
    parameters: dict[str, object]
    """As used, JSON-able."""
    backend: str
    """Library that placed them, with its version."""


class Fit(Protocol):
    """Place the points of a head."""

    def __call__(self, points: Points, spec: MapSpec) -> Fitted:
        """Return the points placed, the same for the same seed."""
        ...


class Transform(Protocol):
    """Place points of further sequences among those that are there, which do not move."""

    def __call__(self, state: State, points: Points, spec: MapSpec) -> Floats:
        """Return coordinates, float32 (n, dims), in the frame that the fit's coordinates had."""
        ...


@dataclass(frozen=True)
class Method:
    """A projection method."""

    fit: Fit
    transform: Transform


def has_too_few(points: Points, spec: MapSpec) -> bool:
    """Whether there are too few distinct points for a graph of neighbours."""
    return len(points.merged[0]) < max(MIN_POINTS, spec.dims + 2)


def keep_placed(distinct: Floats, places: Floats) -> State:
    """The state of a map whose further points are placed by those that are there.

    Args:
        distinct: float32, shape (n, d), the vectors placed.
        places: float32, shape (n, dims).

    Returns:
        `vectors`, float16 if that hardly moves them, else float32, and `places`, float32.
    """
    return {"vectors": shorten(distinct), "places": places.astype(np.float32)}


def place_further(
    state: State, vectors: Floats, place: Callable[[Floats, Floats, Floats], Floats]
) -> Floats:
    """Place vectors among kept ones: equal vectors alike, and known ones where they are.

    Args:
        state: of `keep_placed`.
        vectors: float32, shape (n, d).
        place: takes distinct new vectors, the kept vectors and their places, and gives the new
            places, shape (n_new, dims).

    Returns:
        float32, shape (n, dims).
    """
    kept, places = state["vectors"].astype(np.float32), state["places"]
    with np.errstate(over="ignore"):  # beyond float16's range a vector is as it was: far off
        rounded = vectors.astype(state["vectors"].dtype).astype(np.float32)
    rounded = np.where(np.isfinite(rounded), rounded, vectors)
    distinct, inverse = merge_duplicates(rounded)
    known = _match_rows(distinct, kept)
    placed = np.empty((len(distinct), places.shape[1]), dtype=np.float32)
    placed[known >= 0] = places[known[known >= 0]]
    if (known < 0).any():
        placed[known < 0] = place(distinct[known < 0], kept, places)
    result: Floats = placed[inverse]
    return result


def shorten(vectors: Floats) -> NDArray[Any]:
    """Vectors to keep: float16 if rounding them is small beside their spread, else as given."""
    with np.errstate(over="ignore"):
        short = vectors.astype(np.float16)
    spread = vectors.std(axis=0, dtype=np.float64)
    error = short.astype(np.float64) - vectors
    fits = bool((error**2).sum(axis=1).mean() <= _ROUNDING**2 * (spread**2).sum())
    return short if fits else vectors


def _match_rows(rows: Floats, among: Floats) -> NDArray[np.int64]:
    """The first equal row for each row, or −1; both arrays are C-contiguous float32."""
    joined = np.concatenate([among, rows]) + np.float32(0)  # −0 becomes 0
    _, first, inverse = np.unique(joined, axis=0, return_index=True, return_inverse=True)
    found = first[inverse.reshape(-1)[len(among) :]]
    match: NDArray[np.int64] = np.where(found < len(among), found, -1)
    return match


def has_cuml() -> bool:
    """Whether a GPU is there and cuML imports."""
    if not torch.cuda.is_available() or importlib.util.find_spec("cuml") is None:
        return False
    try:
        importlib.import_module("cuml")
    except (ImportError, OSError, RuntimeError):  # installed for another CUDA: the CPU serves
        return False
    return True


def name_library(library: str) -> str:
    """A library and its installed version; cuML's distributions are named for their CUDA."""
    for name in (library, f"{library}-cu13", f"{library}-cu12"):
        try:
            return f"{library} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    return f"{library} of unknown version"
