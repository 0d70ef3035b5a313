"""Measures of a head: what it attends to, how sharply, and how its vectors lie.

All of them come from attention recomputed from stored vectors, in one pass over whole sequences
in padded batches; only the induction score needs the model (`pipeline.induction`). `MEASURES`
defines every name; `docs/measures.md` says the same at length.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.attention import score, softmax_in_reach
from pipeline.fidelity import key_distances, spearman_in_reach
from pipeline.joint import make_joint
from pipeline.padding import Batch, make_batches
from pipeline.part_of_speech import PARTS_OF_SPEECH
from store.errors import ShapeError
from store.vectors import HeadVectors, Ints, Positions

MEASURES: dict[str, str] = {
    "entropy": "Shannon entropy of attention divided by log of the keys in reach, 0 to 1",
    "mean_distance": "attention-weighted distance of query and key, positions",
    "previous_token": "attention to the key one position before the query, 0 to 1",
    "next_token": "attention to the key one position after the query, 0 to 1",
    "self_token": "attention to the key at the query's own position, 0 to 1",
    "first_token": "attention to the key at position 0, 0 to 1",
    "special_token": "attention to special tokens, 0 to 1",
    "punctuation": "attention to tokens of punctuation and symbols only, 0 to 1",
    "same_token": "attention to the query's own vocabulary id at other positions, 0 to 1",
    "randomness": "total variation distance of attention to uniform over its reach, 0 to 1",
    "query_norm": "mean Euclidean norm of query vectors, vector units",
    "key_norm": "mean Euclidean norm of key vectors, vector units",
    "norm_ratio": "query_norm divided by key_norm, no unit",
    "centroid_distance": "distance of the mean query and the mean key vector, vector units",
    "score_mean": "mean logit over the keys in reach, logits",
    "score_spread": "standard deviation of the logits over the keys in reach, logits",
    "effective_rank_q": "effective rank of the matrix of query vectors, dimensions",
    "effective_rank_k": "effective rank of the matrix of key vectors, dimensions",
    "effective_rank_qk": "effective rank of the matrix of all query-key products, dimensions",
    "score_spearman": "rank correlation of score and distance in the translate space, −1 to 1",
    "induction": "attention to the token behind the earlier occurrence, in repeats, 0 to 1",
}
"""Name of each measure and its definition in one line with the unit."""

TAG_MEASURES: dict[str, str] = {
    f"to_{tag.lower()}": f"attention to {words}, 0 to 1" for tag, words in PARTS_OF_SPEECH.items()
}
"""The same for the measures that a head has only where tokens carry a part of speech."""

_TOKENIZER_SPACES = "\u2581\u0120\u010a\u0109"  # ▁ of SentencePiece; space, newline, tab as GPT-2


@dataclass(frozen=True)
class TokenFacts:
    """What is known of each position's token; all arrays (n,), by (sequence_id, position)."""

    sequence_id: Ints
    position: Ints
    vocab_id: Ints
    """int64, −1 where there is none, as for image patches."""
    is_special: NDArray[np.bool_]
    is_punctuation: NDArray[np.bool_]
    part_of_speech: NDArray[np.object_] | None = None
    """Universal tag of the token's word, "" without one; None where no token was tagged."""

    def tagged(self) -> dict[str, NDArray[np.bool_]]:
        """For the measure of each tag that occurs, which tokens have it."""
        tags = np.array([] if self.part_of_speech is None else self.part_of_speech, dtype=np.str_)
        return {f"to_{tag.lower()}": tags == tag for tag in np.unique(tags[tags != ""]).tolist()}


def punctuation(tokens: Sequence[str | None]) -> NDArray[np.bool_]:
    """Which tokens consist of punctuation and symbols only, tokenizer marks aside.

    Args:
        tokens: texts as the tokenizer spells them; None where there is no text.

    Returns:
        bool, shape (n,). Unicode's categories P and S count; a token of marks alone does not.
    """
    known = {token: token is not None and _is_punctuation(token) for token in set(tokens)}
    return np.array([known[token] for token in tokens], dtype=np.bool_)


def _is_punctuation(token: str) -> bool:
    text = _byte_level_text(token.removesuffix("</w>"))
    if text.startswith("##") and len(text) > 2:
        text = text[2:]
    text = text.strip().strip(_TOKENIZER_SPACES)
    return bool(text) and all(unicodedata.category(character)[0] in "PS" for character in text)


def _byte_level_bytes() -> dict[str, int]:
    """The byte behind each character of GPT-2's byte-level spelling (its `bytes_to_unicode`)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {
        chr(256 + at): byte for at, byte in enumerate(hidden)
    }


_BYTES = _byte_level_bytes()


def _byte_level_text(token: str) -> str:
    """The text behind a byte-level spelling such as `âĢĻ` for ’; other tokens as they are."""
    if token.isascii() or not all(character in _BYTES for character in token):
        return token
    try:
        return bytes(_BYTES[character] for character in token).decode()
    except UnicodeDecodeError:
        return token


def measure_head(
    head: HeadVectors, query_tokens: TokenFacts, key_tokens: TokenFacts
) -> dict[str, float | None]:
    """Measure one head over all sequences given.

    Args:
        head: vectors of whole sequences, before scaling.
        query_tokens: a row for each query, in its order.
        key_tokens: a row for each key, in its order.

    Returns:
        A value for every name in `MEASURES` but `induction`, and in `TAG_MEASURES` where keys are
        tagged; None where it is undefined, or no key has the tag.

    Raises:
        ShapeError: tokens and vectors do not belong together, or vectors are missing or not
            finite.
    """
    _check_rows("query", query_tokens, head.query_at)
    _check_rows("key", key_tokens, head.key_at)
    space = make_joint(head, "translate")
    places = torch.from_numpy(space.queries).double(), torch.from_numpy(space.keys).double()
    vectors = torch.from_numpy(head.queries).double(), torch.from_numpy(head.keys).double()
    tagged = key_tokens.tagged()
    rows: dict[str, list[Tensor]] = {}
    for batch in make_batches(head):
        attended = _Attended(head, vectors, batch)
        values = attended.shape_values() | attended.mass_values(query_tokens, key_tokens)
        values |= attended.tag_values(tagged)
        distance = key_distances(*places, batch)
        values["score_spearman"] = spearman_in_reach(distance, attended.scores, batch.reach)
        for name, value in values.items():
            rows.setdefault(name, []).append(value[batch.reach.any(dim=-1)])
    means = {name: _mean_of_defined(torch.cat(parts)) for name, parts in rows.items()}
    means |= _vector_values(*vectors)
    # A tag that no longer occurs is None, or the value of an older sample would stay the newest.
    means |= {name: means.get(name) for name in TAG_MEASURES if tagged}
    return {name: means[name] for name in (*MEASURES, *TAG_MEASURES) if name in means}


def _check_rows(kind: str, tokens: TokenFacts, at: Positions) -> None:
    same = np.array_equal(tokens.sequence_id, at.sequence_id)
    if not (same and np.array_equal(tokens.position, at.position)):
        raise ShapeError(
            f"{len(tokens.position)} {kind} tokens and {len(at.position)} {kind} vectors must "
            "name the same positions in the same order"
        )


class _Attended:
    """Scores and attention of a batch; its values have shape (n_blocks, n_queries)."""

    def __init__(self, head: HeadVectors, vectors: tuple[Tensor, Tensor], batch: Batch) -> None:
        """Recompute attention, with the sink for masses and without it for distributions."""
        queries, keys = vectors[0][batch.query_row], vectors[1][batch.key_row]
        self.batch = batch
        self.scores = score(queries, keys, head.facts, batch.offset)
        self.n_reach = batch.reach.sum(dim=-1)
        self.distribution = softmax_in_reach(self.scores, batch.reach)
        sink = head.facts.sink
        self.mass = (
            self.distribution if sink is None else softmax_in_reach(self.scores, batch.reach, sink)
        )

    def shape_values(self) -> dict[str, Tensor]:
        """Values of the form of each query's distribution and of its logits; NaN if undefined."""
        reach, n_reach = self.batch.reach, self.n_reach.double()
        entropy = torch.special.entr(self.distribution).sum(dim=-1) / n_reach.log()
        uniform = reach / n_reach.clamp(min=1)[..., None]
        mean = self.scores.masked_fill(~reach, 0.0).sum(dim=-1) / n_reach
        deviation = (self.scores - mean[..., None]).masked_fill(~reach, 0.0)
        return {
            "entropy": entropy.masked_fill(self.n_reach < 2, float("nan")),
            "mean_distance": (self.distribution * self.batch.offset.abs()).sum(dim=-1),
            "randomness": (self.distribution - uniform).abs().sum(dim=-1) / 2,
            "score_mean": mean,
            "score_spread": ((deviation**2).sum(dim=-1) / n_reach).sqrt(),
        }

    def mass_values(self, query_tokens: TokenFacts, key_tokens: TokenFacts) -> dict[str, Tensor]:
        """Attention mass that each query gives to kinds of keys."""
        batch = self.batch
        vocab_id = torch.from_numpy(query_tokens.vocab_id)[batch.query_row][:, :, None]
        same = torch.from_numpy(key_tokens.vocab_id)[batch.key_row][:, None, :] == vocab_id
        special = torch.from_numpy(key_tokens.is_special)[batch.key_row][:, None, :]
        marks = torch.from_numpy(key_tokens.is_punctuation)[batch.key_row][:, None, :]
        kinds = {
            "previous_token": batch.offset == -1,
            "next_token": batch.offset == 1,
            "self_token": batch.offset == 0,
            "first_token": batch.key_position == 0,
            "special_token": special,
            "punctuation": marks,
            "same_token": same & (vocab_id >= 0) & (batch.offset != 0),
        }
        return {name: (self.mass * kind).sum(dim=-1) for name, kind in kinds.items()}

    def tag_values(self, tagged: dict[str, NDArray[np.bool_]]) -> dict[str, Tensor]:
        """Attention mass that each query gives to the keys of each part of speech."""
        row = self.batch.key_row
        return {
            name: (self.mass * torch.from_numpy(is_tagged)[row][:, None, :]).sum(dim=-1)
            for name, is_tagged in tagged.items()
        }


def _mean_of_defined(values: Tensor) -> float | None:
    defined = values[~values.isnan()]
    return float(defined.mean()) if len(defined) else None


def _vector_values(queries: Tensor, keys: Tensor) -> dict[str, float | None]:
    """Measures of the vectors alone; float64, (n, d_head) each."""
    query_norm, key_norm = (float(each.norm(dim=1).mean()) for each in (queries, keys))
    # The triangular factors stand for the matrices: (min(n, d_head), d_head), and the products'
    # singular values are those of one d_head-sized matrix, never of the n x n one.
    query_factor, key_factor = (torch.linalg.qr(each, mode="r").R for each in (queries, keys))
    return {
        "query_norm": query_norm,
        "key_norm": key_norm,
        "norm_ratio": query_norm / key_norm if key_norm > 0 else None,
        "centroid_distance": float((queries.mean(dim=0) - keys.mean(dim=0)).norm()),
        "effective_rank_q": effective_rank(query_factor),
        "effective_rank_k": effective_rank(key_factor),
        "effective_rank_qk": effective_rank(query_factor @ key_factor.T),
    }


def effective_rank(matrix: Tensor) -> float | None:
    """Effective rank of a matrix: exp of the entropy of its singular values, normalised to sum 1.

    None for a matrix of zeros.

    Source: Roy & Vetterli, EUSIPCO 2007, definition 1.
    """
    values = torch.linalg.svdvals(matrix)
    total = values.sum()
    if total == 0:
        return None
    return float(torch.special.entr(values / total).sum().exp())
