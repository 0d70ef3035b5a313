import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.throughput import STEPS, Throughput


def rate_of(*looks: tuple[float, int], window_s: float = 60) -> float | None:
    throughput = Throughput(window_s)
    for time_s, count in looks:
        throughput.add(time_s, count)
    return throughput.rate()


def test_no_rate_is_known_before_something_is_done() -> None:
    assert rate_of() is None
    assert rate_of((0, 500), (2, 500), (4, 500)) is None


def test_the_rate_counts_from_the_first_look() -> None:
    assert rate_of((0, 500), (2, 500), (4, 900)) == 100


def test_the_rate_falls_while_nothing_more_is_done() -> None:
    assert rate_of((0, 0), (10, 1000)) == 100
    assert rate_of((0, 0), (10, 1000), (20, 1000)) == 50


def test_what_is_older_than_the_window_is_forgotten() -> None:
    slow = [(float(second), second) for second in range(100)]
    fast = [(100.0 + second, 100 + 50 * second) for second in range(100)]
    assert rate_of(*slow, *fast, window_s=20) == pytest.approx(50)
    assert 2 < (rate_of(*slow, *fast, window_s=160) or 0) < 48


def test_shards_that_take_longer_than_the_window_have_a_rate_all_the_same() -> None:
    looks = [(float(second), 1000 * (second // 100)) for second in range(1001)]
    assert rate_of(*looks, window_s=20) == pytest.approx(10, rel=0.01)
    between = rate_of(*looks[:950], window_s=20)
    assert between == pytest.approx(10, rel=1 / STEPS)


def test_a_count_that_fell_begins_anew() -> None:
    assert rate_of((0, 0), (1, 1000), (2, 10)) is None
    assert rate_of((0, 0), (1, 1000), (2, 10), (4, 50)) == 20


def test_a_pause_is_no_part_of_the_rate() -> None:
    before = [(30.0 * step, 1000 * step) for step in range(20)]
    after = [(20_000 + 30.0 * step, 20_000 + 1000 * step) for step in range(3)]
    assert rate_of(*before, after[0]) is None
    assert rate_of(*before, *after) == pytest.approx(1000 / 30)


def test_other_work_begins_anew() -> None:
    throughput = Throughput()
    throughput.add(0, 0)
    throughput.add(10, 500)
    throughput.begin_anew()
    throughput.add(100, 500)
    throughput.add(101, 600)
    assert throughput.rate() == 100


def test_time_left_is_what_waits_over_the_rate() -> None:
    throughput = Throughput()
    assert throughput.time_left(100) is None
    throughput.add(0, 0)
    throughput.add(10, 500)
    assert throughput.time_left(1000) == 20
    assert throughput.time_left(0) == 0


@given(st.lists(st.tuples(st.floats(0.1, 100), st.integers(0, 5000)), min_size=2, max_size=60))
def test_a_rate_lies_between_the_slowest_and_the_fastest_step(
    steps: list[tuple[float, int]],
) -> None:
    throughput, now, count, rates = Throughput(30), 0.0, 0, []
    throughput.add(now, count)
    for seconds, n in steps:
        now, count = now + seconds, count + n
        throughput.add(now, count)
        rates.append(n / seconds)
    rate = throughput.rate()
    if rate is not None:
        assert min(rates) * 0.999 <= rate <= max(rates) * 1.001
    else:
        assert count == 0
