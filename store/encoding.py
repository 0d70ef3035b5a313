"""How rows become Parquet: rounding, encodings and row groups, the same for every file we write.

Vectors are rounded to the model's precision as 32-bit floats, then split by byte so that zstd
finds the zero bits: smaller than half floats, and every engine reads them.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from store.schema import TABLES, VECTOR

MANTISSA_BITS = {"float16": 10, "bfloat16": 7, "float32": 23}

ROW_GROUP_ELEMENTS = 131_072
"""Vector elements in a row group: one sequence of one head is then one small read."""

_VECTOR_COLUMN = "vector.list.element"
_STATISTICS = ("sequence_id", "rank")


def rows_per_group(d_head: int) -> int:
    """Rows in a row group of vectors of this width."""
    return max(1, ROW_GROUP_ELEMENTS // d_head)


def round_mantissa(values: NDArray[np.float32], precision: str) -> None:
    """Round floats in place to the mantissa bits of a precision, ties to even.

    Args:
        values: float32, contiguous, any shape; changed. The exponent keeps float32's range.
        precision: float16, bfloat16 or float32.
    """
    drop = 23 - MANTISSA_BITS[precision]
    if drop == 0:
        return
    bits = values.view(np.uint32)
    half = bits >> np.uint32(drop)
    half &= np.uint32(1)
    half += np.uint32((1 << (drop - 1)) - 1)
    bits += half
    bits &= np.uint32(0xFFFFFFFF << drop & 0xFFFFFFFF)


def vector_array(values: NDArray[np.float32]) -> pa.ListArray:
    """An Arrow list column over rows of floats, without a copy.

    Args:
        values: float32, C-contiguous, shape (n, d_head).
    """
    n, width = values.shape
    offsets = pa.array(np.arange(0, (n + 1) * width, width, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, pa.array(values.reshape(-1)), type=VECTOR)


def open_writer(table: str, where: Any, schema: pa.Schema | None = None) -> pq.ParquetWriter:
    """A Parquet writer with the atlas's encodings for one of its tables.

    Args:
        table: name of the table.
        where: path or file object.
        schema: columns of the file; default the table's.
    """
    schema = schema or TABLES[table].file_schema
    schema = schema.remove_metadata()
    is_vectors = "vector" in schema.names
    options: dict[str, Any] = {"use_dictionary": True}
    if is_vectors:
        options = {
            "use_dictionary": False,
            "column_encoding": {_VECTOR_COLUMN: "BYTE_STREAM_SPLIT"},
        }
        for column in ("sequence_id", "position"):
            options["column_encoding"][column] = "DELTA_BINARY_PACKED"
        if "value_norm" in schema.names:
            options["column_encoding"]["value_norm"] = "BYTE_STREAM_SPLIT"
    return pq.ParquetWriter(
        where,
        schema,
        compression="zstd",
        compression_level=1,
        write_statistics=[name for name in _STATISTICS if name in schema.names] or False,
        write_page_checksum=True,
        store_schema=False,
        data_page_size=1 << 20,
        **options,
    )
