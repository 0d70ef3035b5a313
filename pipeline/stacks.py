"""Which attention calls of a forward pass belong to which stack and layer.

A model with several stacks (encoder and decoder, text and image tower) gets a model key for
each. One short traced forward pass tells all there is to know; no architecture is named here.
"""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from pipeline.inputs import Inputs, forward, probe_inputs
from pipeline.models import LoadedModel
from pipeline.tap import AttentionCall, StopForward, outside_interface, run_forward
from store.errors import ConfigError, UnsupportedModelError


@dataclass(frozen=True)
class CallSite:
    """One attention call of a forward pass, in order."""

    module: str
    """Qualified name of the attention module."""
    stack: str
    """Suffix of the stack's model key; empty for a model with one stack."""
    layer: int
    """Layer within the stack, from 0."""
    n_heads: int
    n_kv_heads: int
    d_head: int


@dataclass(frozen=True)
class StackShape:
    """A stack as its calls show it, and the keys of the stacks whose tokens describe it."""

    stack: str
    model: str
    query_model: str
    key_model: str
    sites: tuple[CallSite, ...]

    @property
    def is_cross(self) -> bool:
        """Whether queries and keys belong to different sequences of tokens."""
        return f"-{self.stack}".endswith("-cross")

    @property
    def n_layers(self) -> int:
        """Layers of the stack, captured or not."""
        return 1 + max(site.layer for site in self.sites)


@dataclass(frozen=True)
class _Seen:
    name: str
    layer_idx: int | None
    query_shape: tuple[int, ...]
    key_shape: tuple[int, ...]

    @property
    def is_cross(self) -> bool:
        return self.query_shape[2] != self.key_shape[2]

    @property
    def prefix(self) -> str:
        return re.split(r"\.?\d+", self.name, maxsplit=1)[0]


def trace_calls(loaded: LoadedModel) -> tuple[CallSite, ...]:
    """Run a short probe and name every attention call of a forward pass.

    Raises:
        UnsupportedModelError: there is no call, or calls change batch size or query length.
    """
    inputs = probe_inputs(loaded)
    names = {id(module): name for name, module in loaded.model.named_modules()}
    seen: list[_Seen] = []

    def visit(call: AttentionCall) -> None:
        index = getattr(call.module, "layer_idx", None)
        name = names[id(call.module)]
        seen.append(_Seen(name, index, tuple(call.query.shape), tuple(call.key.shape)))

    run_forward(lambda: forward(loaded, inputs), visit)
    if not seen:
        raise outside_interface(loaded.model)
    _check_shapes(loaded, inputs, seen)
    return _name_sites(loaded, seen)


def visit_calls(
    loaded: LoadedModel,
    sites: Sequence[CallSite],
    inputs: Inputs,
    wanted: Collection[int],
    visit: Callable[[int, AttentionCall], None],
) -> None:
    """Run a batch and show the calls that are wanted; the pass ends after the last of them.

    Args:
        loaded: the model.
        sites: its calls in order, as traced.
        inputs: the batch.
        wanted: indices of calls, at least one.
        visit: gets the index of the call, and the call.

    Raises:
        UnsupportedModelError: the model's calls differ from those traced.
    """
    longest, last = max(inputs.lengths), max(wanted)
    seen = 0

    def show(call: AttentionCall) -> None:
        nonlocal seen
        if seen >= len(sites) or call.query.shape[2] != longest:
            raise UnsupportedModelError(
                f"{loaded.architecture} made an attention call ({seen}) that its probe did not; "
                "models whose calls depend on their input are not supported"
            )
        if seen in wanted:
            visit(seen, call)
        if seen == last:
            raise StopForward
        seen += 1

    run_forward(lambda: forward(loaded, inputs), show)


def _check_shapes(loaded: LoadedModel, inputs: Inputs, seen: Sequence[_Seen]) -> None:
    """Refuse models that cut sequences into windows or pool them between layers."""
    lengths: dict[tuple[str, bool], int] = {}
    for call in seen:
        expected = lengths.setdefault((call.prefix, call.is_cross), call.query_shape[2])
        if call.query_shape[0] != inputs.n_sequences or call.query_shape[2] != expected:
            raise UnsupportedModelError(
                f"{loaded.architecture}: attention call {call.name} has batch and query length "
                f"{call.query_shape[0]} x {call.query_shape[2]}, expected "
                f"{inputs.n_sequences} x {expected}; models that attend within windows or pool "
                "between layers are not supported"
            )


def _name_sites(loaded: LoadedModel, seen: Sequence[_Seen]) -> tuple[CallSite, ...]:
    groups: dict[tuple[str, bool], list[_Seen]] = {}
    for call in seen:
        groups.setdefault((call.prefix, call.is_cross), []).append(call)
    suffixes = _suffixes(list(groups), is_two_tower(loaded))
    layers: dict[tuple[str, bool], list[int]] = {
        group: _number_layers(calls) for group, calls in groups.items()
    }
    taken = dict.fromkeys(groups, 0)
    sites = []
    for call in seen:
        group = (call.prefix, call.is_cross)
        layer = layers[group][taken[group]]
        taken[group] += 1
        sites.append(
            CallSite(
                call.name,
                suffixes[group],
                layer,
                call.query_shape[1],
                call.key_shape[1],
                call.query_shape[3],
            )
        )
    return tuple(sites)


def _number_layers(calls: Sequence[_Seen]) -> list[int]:
    """The modules' own layer numbers where each has one, else the order of the calls."""
    own = [call.layer_idx for call in calls]
    if None not in own and len(set(own)) == len(own):
        return [int(index) for index in own if index is not None]
    return list(range(len(calls)))


def _suffixes(groups: Sequence[tuple[str, bool]], two_tower: bool) -> dict[tuple[str, bool], str]:
    """A short name for each stack: cross, encoder, decoder, text, vision, or its prefix."""
    if len(groups) == 1 and not two_tower:
        return {groups[0]: ""}
    names = {
        (prefix, cross): "cross" if cross else prefix.split(".")[0].removesuffix("_model")
        for prefix, cross in groups
    }
    if len(set(names.values())) < len(names):
        names = {
            (prefix, cross): prefix.replace(".", "-").replace("_", "-") + ("-cross" * cross)
            for prefix, cross in groups
        }
    return names


def is_two_tower(loaded: LoadedModel) -> bool:
    """Whether text and images go through towers of their own, as in CLIP."""
    return all(hasattr(loaded.model, f"get_{kind}_features") for kind in ("text", "image"))


def list_stacks(key: str, sites: Sequence[CallSite]) -> tuple[StackShape, ...]:
    """The stacks of a model with their model keys.

    Args:
        key: the model key of the run, without a suffix.
        sites: all calls of a forward pass.
    """
    stacks = list(dict.fromkeys(site.stack for site in sites))
    names = {stack: f"{key}--{stack}" if stack else key for stack in stacks}
    shapes = []
    for stack in stacks:
        own = tuple(site for site in sites if site.stack == stack)
        query, keys = names[stack], names[stack]
        if stack == "cross":
            query, keys = names.get("decoder", query), names.get("encoder", keys)
        shapes.append(StackShape(stack, names[stack], query, keys, own))
    return tuple(shapes)


def choose_layers(stack: StackShape, layers: tuple[int, ...] | None) -> tuple[int, ...]:
    """The layers of a stack to capture, in order.

    Raises:
        ConfigError: none of the layers asked for is there, or one is not.
    """
    own = tuple(sorted({site.layer for site in stack.sites}))
    return _choose(own, layers, "capture.layers", f"{stack.model} has layers")


def choose_heads(site: CallSite, heads: tuple[int, ...] | None) -> tuple[int, ...]:
    """The query heads of a layer to capture, in order.

    Raises:
        ConfigError: a head asked for is not there.
    """
    return _choose(
        tuple(range(site.n_heads)), heads, "capture.heads", f"layer {site.layer} has heads"
    )


def _choose(
    own: tuple[int, ...], wanted: tuple[int, ...] | None, field: str, there: str
) -> tuple[int, ...]:
    if wanted is None:
        return own
    missing = sorted(set(wanted) - set(own))
    if missing:
        raise ConfigError(f"{field}: {missing} not in the model; {there} {own[0]} to {own[-1]}")
    return tuple(sorted(wanted))


def kv_head_of(site: CallSite, head: int) -> int:
    """The key-value head that a query head reads."""
    return head // (site.n_heads // site.n_kv_heads)
