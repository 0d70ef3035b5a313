"""Parts of speech of tokens: a spaCy pipeline tags words, and a token takes its word's tag.

spaCy is an extra, so it is imported only where a run asks for tags.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.inputs import Encoded
from pipeline.models import LoadedModel
from store.errors import ConfigError

PARTS_OF_SPEECH = {
    "ADJ": "adjectives",
    "ADP": "prepositions and postpositions",
    "ADV": "adverbs",
    "AUX": "auxiliary verbs",
    "CCONJ": "coordinating conjunctions",
    "DET": "determiners",
    "INTJ": "interjections",
    "NOUN": "nouns",
    "NUM": "numerals",
    "PART": "particles",
    "PRON": "pronouns",
    "PROPN": "proper nouns",
    "PUNCT": "punctuation, as tagged",
    "SCONJ": "subordinating conjunctions",
    "SPACE": "white space",
    "SYM": "symbols, as tagged",
    "VERB": "verbs",
    "X": "words of no other class",
}
"""The universal tags (universaldependencies.org/u/pos), and spaCy's SPACE, with their meaning."""

_UNUSED = ("parser", "senter", "ner", "entity_ruler", "entity_linker", "textcat", "lemmatizer")
_MAX_CHARACTERS = 2**31 - 1  # spaCy's own limit is for parsers, which do not run here

Words = tuple[NDArray[np.int64], NDArray[np.int64], Sequence[str]]
"""First characters, ends and tags of a text's words, in order; "" where a word has no tag."""


@dataclass(frozen=True)
class Tagger:
    """A loaded spaCy pipeline."""

    nlp: Any

    def tag(self, texts: Sequence[str], encoded: Sequence[Encoded]) -> list[Encoded]:
        """The sequences with `part_of_speech`; what capture cut off is not tagged.

        Args:
            texts: of the sequences.
            encoded: the same sequences as tokens, with the characters that each covers.
        """
        read = [_captured(text, each) for text, each in zip(texts, encoded, strict=True)]
        words = [_words(document) for document in self.nlp.pipe(read)]
        return [
            replace(each, part_of_speech=_tags(each, of_text))
            for each, of_text in zip(encoded, words, strict=True)
        ]


def load_tagger(name: str) -> Tagger:
    """Load a spaCy pipeline by name or folder.

    Raises:
        ConfigError: spaCy or the pipeline is not there, or nothing in the pipeline tags.
    """
    field = f"capture.part_of_speech: {name}"
    try:
        import spacy
    except ImportError as error:
        raise ConfigError(
            f"{field} needs spaCy, which is not installed: pip install 'qkatlas[pos]' and "
            "python -m spacy download en_core_web_sm, or leave the setting out"
        ) from error
    try:
        nlp = spacy.load(name, exclude=list(_UNUSED))
    except (OSError, ValueError, ImportError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"{field} does not load as a spaCy pipeline ({reason}): "
            "python -m spacy download en_core_web_sm, or name a folder that holds one"
        ) from error
    if not nlp.pipe_names:
        raise ConfigError(
            f"{field} has no component that tags; expected a tagger, morphologizer or "
            "attribute_ruler, as in en_core_web_sm"
        )
    nlp.max_length = _MAX_CHARACTERS
    return Tagger(nlp)


def check_taggable(loaded: LoadedModel) -> None:
    """Refuse input whose tokens cannot be laid beside words.

    Raises:
        ConfigError: images, or a tokenizer that does not tell characters.
    """
    if loaded.modality == "image":
        raise ConfigError("capture.part_of_speech: the corpus is images; leave the setting out")
    if not loaded.tokenizer.is_fast:
        raise ConfigError(
            "capture.part_of_speech: needs a fast tokenizer, which tells the characters of each "
            f"token, and {type(loaded.tokenizer).__name__} is none; leave the setting out"
        )


def _captured(text: str, encoded: Encoded) -> str:
    """The text up to the end of the word in which capture cut it off."""
    if not encoded.truncated or encoded.char_end is None:
        return text
    end = text.find(" ", int(encoded.char_end.max(initial=0)))
    return text if end < 0 else text[:end]


def _words(document: Any) -> Words:
    start = np.array([word.idx for word in document], dtype=np.int64)
    length = np.array([len(word) for word in document], dtype=np.int64)
    return start, start + length, [word.pos_ for word in document]


def _tags(encoded: Encoded, words: Words) -> NDArray[np.object_]:
    """The tag of each token, shape (n_tokens,); None without one."""
    tags = np.full(encoded.n_tokens, None, dtype=np.object_)
    if encoded.char_start is None or encoded.char_end is None:
        return tags
    spans = zip(encoded.char_start.tolist(), encoded.char_end.tolist(), strict=True)
    for at, (start, end) in enumerate(spans):
        tags[at] = word_tag(start, end, words)
    return tags


def word_tag(start: int, end: int, words: Words) -> str | None:
    """The tag of the word that covers most of a span, the first of equals; None without one.

    Args:
        start: first character of the span.
        end: character behind its last; an empty span has no word.
        words: of the text.
    """
    first, behind, tags = words
    near = range(
        int(np.searchsorted(behind, start, side="right")), int(np.searchsorted(first, end))
    )
    if end <= start or not near:
        return None
    best = max(near, key=lambda at: min(end, int(behind[at])) - max(start, int(first[at])))
    return tags[best] or None
