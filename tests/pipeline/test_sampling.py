"""The sample is the same everywhere, and a larger one contains a smaller one."""

import xxhash
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sampling import is_sampled, sample_hash

PLACES = st.tuples(
    st.text("a:1,", max_size=4), st.text("b:1,", max_size=4), st.integers(0), st.integers()
)


@given(PLACES, PLACES)
def test_two_places_never_share_an_encoding(
    one: tuple[str, str, int, int], other: tuple[str, str, int, int]
) -> None:
    assert (sample_hash(*one) == sample_hash(*other)) == (one == other)


def test_hash_is_fixed_for_good() -> None:
    assert sample_hash("wiki", "/é", 7, 3) == xxhash.xxh64_intdigest("4:wiki2:/é7,3".encode())


@given(st.integers(0, 2**64 - 1), st.floats(0, 1), st.floats(0, 1))
def test_larger_fraction_keeps_what_a_smaller_kept(place: int, one: float, other: float) -> None:
    if is_sampled(place, min(one, other)):
        assert is_sampled(place, max(one, other))


def test_whole_and_empty_sample() -> None:
    assert is_sampled(2**64 - 1, 1.0)
    assert not is_sampled(0, 0.0)


def test_share_of_rows_is_the_fraction() -> None:
    kept = sum(is_sampled(sample_hash("c", "/f", row, 0), 0.2) for row in range(20_000))
    assert abs(kept - 4_000) < 200
