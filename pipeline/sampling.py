"""Which rows of a corpus are in the sample: by a hash of the place, the same for every model.

Separate from reading and from planning because both must agree on it to the last bit.
"""

import xxhash


def sample_hash(corpus: str, source: str, row: int, seed: int) -> int:
    """The place of a row in hash order, from 0 to 2^64 - 1.

    The names are written with their lengths, so no two rows share an encoding.

    Args:
        corpus: name of the corpus.
        source: path or URI of the file.
        row: row in the file, from 0.
        seed: seed of the order.
    """
    place = f"{len(corpus)}:{corpus}{len(source)}:{source}{row},{seed}"
    return xxhash.xxh64_intdigest(place.encode("utf-8", "surrogatepass"))


def is_sampled(hash: int, fraction: float) -> bool:
    """Whether a row with this hash is in a sample of this share.

    A larger fraction keeps every row that a smaller one kept.
    """
    return hash < fraction * 2**64
