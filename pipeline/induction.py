"""The induction score: what a head does when random text comes a second time.

It is apart from the other measures because it needs sequences of its own, and so the model: a
small pass over random tokens, of which nothing is stored but the scores.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.attention import attention
from pipeline.buffers import Wanted
from pipeline.inputs import Encoded, encode_texts, make_batches, make_inputs
from pipeline.models import LoadedModel
from pipeline.settings import InductionSpec
from pipeline.stacks import CallSite, StackShape, kv_head_of, visit_calls
from pipeline.tap import AttentionCall
from store.attention import HeadFacts

Head = tuple[str, int, int]
"""Model key, layer and query head."""

MIN_BLOCK = 2
"""Tokens in a block; with one, the token behind the earlier occurrence is the query itself."""

_ENOUGH = 64  # tokens, for one letter and what a tokenizer adds


@dataclass(frozen=True)
class Repeats:
    """Sequences of one block of random tokens twice, between the model's special tokens."""

    encoded: list[Encoded]
    first: int
    """Position of the first random token, behind special tokens."""
    block: int
    """Distinct tokens in a block."""

    @property
    def n_tokens(self) -> int:
        """Tokens of all sequences."""
        return sum(sequence.n_tokens for sequence in self.encoded)


@dataclass(frozen=True)
class InductionPass:
    """A model, and what is captured of it."""

    loaded: LoadedModel
    sites: Sequence[CallSite]
    stacks: Sequence[StackShape]
    wanted: Sequence[Wanted]
    batch_tokens: int
    """Tokens in a forward pass."""


def make_repeats(
    loaded: LoadedModel, spec: InductionSpec, length: int, special_tokens: bool
) -> Repeats | None:
    """Draw the sequences; None where there is no text, or no room for two blocks.

    Args:
        loaded: the model with its tokenizer.
        spec: how many, how long, and the seed.
        length: longest sequence in tokens, special tokens included.
        special_tokens: whether the tokenizer adds its special tokens, as in capture.
    """
    if loaded.modality == "image":
        return None
    before, behind = _special_ends(loaded) if special_tokens else ([], [])
    vocabulary = _plain_ids(loaded)
    room = length - len(before) - len(behind)
    block = min(spec.block, room // 2, len(vocabulary))
    if block < MIN_BLOCK:
        return None
    random = np.random.default_rng(spec.seed)
    rows = [random.choice(vocabulary, block, replace=False) for _ in range(spec.sequences)]
    is_special = np.array([True] * len(before) + [False] * 2 * block + [True] * len(behind))
    encoded = [
        Encoded(
            n_tokens=len(is_special),
            truncated=False,
            is_special=is_special,
            vocab_id=np.array([*before, *row, *row, *behind], dtype=np.int32),
        )
        for row in rows
    ]
    return Repeats(encoded, len(before), block)


def _special_ends(loaded: LoadedModel) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and behind a text."""
    (sequence,) = encode_texts(loaded.tokenizer, ["a"], _ENOUGH)
    text = np.flatnonzero(~sequence.is_special)
    if sequence.vocab_id is None or not len(text):
        return [], []
    ids = sequence.vocab_id.tolist()
    return ids[: text[0]], ids[text[-1] + 1 :]


def _plain_ids(loaded: LoadedModel) -> NDArray[np.int64]:
    """Every id of the vocabulary that is no special token and that the model embeds."""
    tokenizer, config = loaded.tokenizer, loaded.model.config
    config = getattr(config, "text_config", config)
    size = min(len(tokenizer), getattr(config, "vocab_size", len(tokenizer)))
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special = {*tokenizer.all_special_ids, *(id for id, token in added.items() if token.special)}
    return np.setdiff1d(np.arange(size), np.array(sorted(special), dtype=np.int64))


def score_induction(
    run: InductionPass, repeats: Repeats | None, facts: Callable[[str, int, int], HeadFacts]
) -> dict[Head, float | None]:
    """The induction score of every captured head, 0 to 1; None in cross attention and on images.

    For each token of the second block, the attention to the token behind the earlier occurrence
    of it, n − 1 positions back in blocks of n; the mean over tokens and sequences. A decoder that
    reads its input shifted right has all of it one position later.

    Args:
        run: the model.
        repeats: the sequences; None leaves every head undefined.
        facts: of a head, by model key, layer and head.

    Source: Olsson et al., "In-context Learning and Induction Heads", 2022, prefix matching score;
        Elhage et al., "A Mathematical Framework for Transformer Circuits", 2021.
    """
    shifted = {s.model: run.loaded.is_encoder_decoder and s.stack == "decoder" for s in run.stacks}
    cross = {stack.model for stack in run.stacks if stack.is_cross}
    scores: dict[Head, float | None] = {
        (want.model, want.site.layer, head): None for want in run.wanted for head in want.heads
    }
    wanted = {want.call: want for want in run.wanted if want.model not in cross}
    if repeats is None or not wanted:
        return scores
    found: dict[Head, list[torch.Tensor]] = {}

    def visit(index: int, call: AttentionCall) -> None:
        want = wanted[index]
        for head in want.heads:
            place = (want.model, want.site.layer, head)
            weights = _attention(call, want.site, head, facts(*place))
            found.setdefault(place, []).append(_on_repeats(weights, repeats, shifted[want.model]))

    for batch in make_batches(repeats.encoded, run.batch_tokens):
        inputs = make_inputs(run.loaded, [repeats.encoded[index] for index in batch])
        visit_calls(run.loaded, run.sites, inputs, wanted, visit)
    return scores | {place: float(torch.cat(parts).mean()) for place, parts in found.items()}


def _attention(call: AttentionCall, site: CallSite, head: int, facts: HeadFacts) -> torch.Tensor:
    """A head's attention, recomputed; shape (batch, n_tokens, n_tokens)."""
    return attention(call.query[:, head], call.key[:, kv_head_of(site, head)], facts)


def _on_repeats(weights: torch.Tensor, repeats: Repeats, is_shifted: bool) -> torch.Tensor:
    """Attention of second-block queries to the token behind their earlier occurrence, flat."""
    start = repeats.first + is_shifted + repeats.block
    query = torch.arange(start, min(start + repeats.block, weights.shape[1]))
    return weights[:, query, query - repeats.block + 1].flatten().double().cpu()
