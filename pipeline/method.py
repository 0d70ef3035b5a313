"""What a projection method is: a fit of points, and a transform that places further ones.

Each method is a file `method_<name>.py` with one `Method`, and a line in `pipeline.maps.METHODS`.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from pipeline.neighbours import Points
from pipeline.settings import MapSpec
from store.vectors import Floats

State = dict[str, NDArray[Any]]
"""Named arrays of numbers, as `numpy.savez` writes them; never objects."""


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
