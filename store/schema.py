"""The tables of an atlas: columns, types, units and partitions. The contract that readers rely on.

Every other module takes column names and types from here, and `docs/tables.md` is checked
against it, so a column is defined once.
"""

from dataclasses import dataclass

import pyarrow as pa

FORMAT = 2
"""Version of the tables, written to each as the property `qkatlas.format`.

A program that knows only format 1 would show merged files (`c-<n>-…`) for ever, dropped or not; a
table that lists some is made format 2 by the first compaction that finds it otherwise.
"""

FORMAT_PROPERTY = "qkatlas.format"

ROW_BITS = 32
"""A sequence id is a file's ordinal shifted left by this, plus the row."""

VECTOR = pa.list_(pa.field("element", pa.float32(), nullable=False))
LABELS = pa.map_(pa.string(), pa.string())

_ARROW_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int": pa.int32(),
    "bigint": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "bool": pa.bool_(),
    "binary": pa.binary(),
    "labels": LABELS,
    "vector": VECTOR,
}


@dataclass(frozen=True)
class Table:
    """A table of the atlas: its Arrow schema, its partition columns and what they mean."""

    name: str
    about: str
    schema: pa.Schema
    partitions: tuple[str, ...]

    @property
    def file_schema(self) -> pa.Schema:
        """The columns inside a Parquet file; partition values live in its folder's name."""
        return pa.schema([field for field in self.schema if field.name not in self.partitions])

    def meaning(self, column: str) -> str:
        """The meaning and unit of a column, as the documentation prints it."""
        return str(self.schema.field(column).metadata[b"comment"].decode())


def _table(name: str, about: str, partitions: str, columns: str) -> Table:
    """Read a table from lines of `column type meaning`; a `!` behind the type forbids null.

    A line that ends in a backslash goes on in the next.
    """
    fields = []
    for line in columns.strip().splitlines():
        column, kind, meaning = line.split(maxsplit=2)
        fields.append(
            pa.field(
                column,
                _ARROW_TYPES[kind.rstrip("!")],
                nullable=not kind.endswith("!"),
                metadata={"comment": " ".join(meaning.split())},
            )
        )
    return Table(name, about, pa.schema(fields), tuple(partitions.split()))


_ALL = (
    _table(
        "files",
        "Corpus files that the atlas knows; the row with most bytes and rows of an ordinal counts.",
        "",
        """
        corpus string! name of the corpus
        ordinal int! number of the file in this atlas, from 0
        source string! path or URI
        bytes bigint! size when read
        fingerprint string! ETag of an object, size and xxh64 of first and last MiB; how it was cut
        n_rows bigint rows in the file; null while only its beginning was read
        """,
    ),
    _table(
        "sequences",
        "What the model read: one row a sequence.",
        "model",
        """
        model string! model key
        corpus string! name of the corpus
        sequence_id bigint! file ordinal x 2^32 + row
        source string! path or URI of the file
        row bigint! row in the file, from 0
        char_offset bigint! characters before the text in its record
        n_tokens int! tokens captured, special tokens included
        truncated bool! true when text was cut at max_length
        text string text; null for images
        image binary PNG of the pixels the model saw, at most 256 px; null for text
        labels labels labels of the row, such as an image's folder
        """,
    ),
    _table(
        "tokens",
        "One row a token or image patch.",
        "model",
        """
        model string! model key
        sequence_id bigint! sequence
        position int! position in the sequence, from 0, without padding
        token string text of the token as the tokenizer spells it; null for patches
        vocab_id int id in the vocabulary; null for patches
        char_start int first character in the sequence's text; null for special tokens and patches
        char_end int character behind the last; null for special tokens and patches
        is_special bool! true for special tokens, CLS patches and registers
        part_of_speech string universal part of speech of the token's word; null unless asked for
        patch_row int row of the patch; null for text, CLS and registers
        patch_col int column of the patch; null for text, CLS and registers
        hue float mean hue of the patch, 0 to 1; null for text
        saturation float mean saturation of the patch, 0 to 1; null for text
        brightness float mean brightness of the patch, 0 to 1; null for text
        label string label of the patch; null where there is none
        """,
    ),
    _table(
        "queries",
        "Query vectors, exactly as the score product uses them, rounded to the model's precision.",
        "model layer head",
        """
        model string! model key
        layer int! layer, from 0
        head int! query head, from 0
        sequence_id bigint! sequence
        position int! position in the sequence, from 0
        vector vector! query vector, d_head floats
        """,
    ),
    _table(
        "keys",
        "Key vectors, each key-value head once.",
        "model layer kv_head",
        """
        model string! model key
        layer int! layer, from 0
        kv_head int! key-value head, from 0
        sequence_id bigint! sequence
        position int! position in the sequence, from 0
        vector vector! key vector, d_head floats
        value_norm float! Euclidean norm of the value vector
        """,
    ),
    _table(
        "models",
        "One capture a model key: the weights and the settings it was taken with.",
        "",
        """
        model string! model key
        source string! hub id, folder or GGUF file
        revision string revision on the hub; null for local files
        weights_sha256 string! SHA-256 over the weight files
        tokenizer_sha256 string SHA-256 over the tokenizer's or processor's files
        architecture string! class of the model
        query_model string! model key whose tokens describe query positions
        key_model string! model key whose tokens describe key positions
        n_layers int! layers of the stack
        n_heads int! query heads a layer
        n_kv_heads int! key-value heads a layer
        d_head int! width of a head
        position_encoding string! rotary, offset_bias, absolute or none
        dtype string! number type of the forward pass
        precision string! float16, bfloat16 or float32: bits kept of each number
        max_length int! longest sequence in tokens
        layers string! captured layers as a JSON list; null means all
        heads string! captured query heads as a JSON list; null means all
        special_tokens bool! true when special tokens were added
        part_of_speech string spaCy pipeline that tagged the words; null without tags
        sample_seed bigint! seed of the sequence sample
        sample_fraction double! share of sequences sampled, 0 to 1
        attention_max_abs_error double largest difference to the model's own attention, unrounded
        attention_stored_max_abs_error double the same with vectors as stored
        """,
    ),
    _table(
        "heads",
        "What is needed to recompute a head's attention from its stored vectors.",
        "",
        """
        model string! model key
        layer int! layer, from 0
        head int! query head, from 0
        kv_head int! key-value head that this query head reads
        d_head int! width of the head
        scaling float! factor on the dot product
        mask string! full or causal
        window int key j is in reach of query i if abs(i - j) < window; null without a window
        soft_cap float score becomes soft_cap x tanh(score / soft_cap); null without one
        sink float extra logit in the softmax denominator; null without one
        offset_bias vector entry m + key position - query position, ends extended; null without one
        """,
    ),
    _table(
        "shards",
        "Ledger of capture: the newest row of a shard says whether its files are visible.",
        "",
        """
        shard_id string! shard
        model string! model key
        corpus string! name of the corpus
        first_ordinal int! file of the first row
        first_row bigint! first row
        last_ordinal int! file of the last row
        last_row bigint! last row, inclusive
        byte_offset bigint byte at which the first row's record begins; null where unknown
        file_rows string! rows of each file as JSON: a list of [ordinal, first row, last row]
        status string! planned, done, quarantined or dropped
        reason string why it was quarantined or dropped
        attempt int! number of the attempt, from 0 when planned
        n_rows bigint! rows in the range
        n_unsampled bigint! rows left out by the sample
        n_sequences bigint! sequences captured (planned: expected)
        n_rejects bigint! rows that could not be read
        n_tokens bigint! tokens captured (planned: expected)
        n_truncated bigint! sequences cut at max_length
        n_files bigint! files written
        bytes bigint! bytes written (planned: expected)
        seconds double! wall time of the work
        worker string! host and process
        generation bigint! newest is highest, for each shard
        """,
    ),
    _table(
        "rejects",
        "Rows that could not be read, and why.",
        "",
        """
        shard_id string! shard
        corpus string! name of the corpus
        source string! path or URI of the file
        row bigint! row in the file, from 0
        reason string! what is wrong with it
        """,
    ),
    _table(
        "points",
        "Positions on the joint maps.",
        "model layer head",
        """
        model string! model key
        layer int! layer, from 0
        head int! query head, from 0
        map_id string! map
        part int! 0 for the fit, then one a transform
        kind string! query or key
        sequence_id bigint! sequence
        position int! position in the sequence, from 0
        x float! first coordinate
        y float! second coordinate
        z float third coordinate; null in 2-D
        rank int! drawing order that keeps density: rank < n is a picture of n points of the fit, \
            and of as large a share of every later part, whose ranks repeat those of the fit
        distortion float 0 where nearer always means a higher score, 0.5 where the map says \
            nothing, 1 reversed; null where undefined
        """,
    ),
    _table(
        "maps",
        "Ledger of maps: one row a map and part, with the fidelity of the part's own sequences. "
        "Held-out figures are of sequences that come after the map's own in hash order, placed by "
        "transform; they are null in later parts and where all sequences are on the map.",
        "",
        """
        map_id string! map
        part int! 0 for the fit, then one a transform
        model string! model key
        layer int! layer, from 0
        head int! query head, from 0
        method string! pca, umap, tsne or attention
        dims int! 2 or 3
        parameters string! settings, sample of sequences and the method's own parameters as JSON
        joint string! the joint space and its fitted constants as JSON
        seed bigint! random seed
        backend string! library that made it
        n_queries bigint! query points
        n_keys bigint! key points
        seconds double! wall time
        status string! ok, failed or dropped
        reason string why it failed or was dropped
        replaces string map that this one replaces
        generation bigint! newest is highest
        score_spearman double mean within-sequence rank correlation of distance and score; ideal -1
        top_key_recall_3 double share of queries whose top key is among the 3 nearest; ideal 1
        score_spearman_content double the same without special tokens
        top_key_recall_3_content double the same without special tokens
        n_evaluated bigint queries that fidelity was computed over
        n_undefined bigint queries whose correlation is undefined
        trustworthiness double share of map neighbours that are true neighbours; ideal 1
        continuity double share of true neighbours that the map keeps; ideal 1
        heldout_score_spearman double score_spearman on sequences the fit did not see
        heldout_top_key_recall_3 double top_key_recall_3 on sequences the fit did not see
        heldout_score_spearman_content double the same without special tokens
        heldout_top_key_recall_3_content double the same without special tokens
        heldout_trustworthiness double trustworthiness on sequences the fit did not see
        heldout_continuity double continuity on sequences the fit did not see
        seed_disparity double Procrustes distance of two seeds' maps of the same points, 0 same \
            to 1 unrelated; null unless asked for
        """,
    ),
    _table(
        "measures",
        "Measures of heads, one row a value; the highest generation counts.",
        "model",
        """
        model string! model key
        layer int! layer, from 0
        head int! query head, from 0
        measure string! name of the measure, defined in docs/measures.md
        value double value in the measure's unit; null where undefined
        corpora string! corpora it was taken over, a JSON list
        sample string token that changes with the sequences it was taken over
        n_sequences bigint! sequences it was taken over
        n_tokens bigint! tokens it was taken over
        generation bigint! newest is highest
        """,
    ),
)

TABLES: dict[str, Table] = {table.name: table for table in _ALL}


def sequence_id(ordinal: int, row: int) -> int:
    """The id of a row of a file: unique in the atlas and exact in JavaScript (below 2^53)."""
    return (ordinal << ROW_BITS) + row
