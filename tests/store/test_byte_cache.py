from concurrent.futures import ThreadPoolExecutor
from time import sleep

import pytest

from store.byte_cache import ByteCache


def test_longest_unused_go_when_bytes_run_out() -> None:
    cache = ByteCache(10)
    made: list[str] = []

    def get(key: str, size: int = 4) -> str:
        def make() -> tuple[str, int]:
            made.append(key)
            return key, size

        return str(cache.get(key, make))

    assert [get("a"), get("b"), get("a"), get("c"), get("a")] == ["a", "b", "a", "c", "a"]
    assert made == ["a", "b", "c"]
    get("b")
    assert made == ["a", "b", "c", "b"]
    assert get("large", 11) == get("large", 11) == "large"
    assert made[4:] == ["large", "large"]
    get("b")
    assert len(made) == 6


def test_threads_make_a_missing_value_once() -> None:
    cache = ByteCache(10)
    made: list[int] = []

    def make() -> tuple[str, int]:
        made.append(1)
        sleep(0.05)
        return "value", 1

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: cache.get("key", make), range(8)))
    assert found == ["value"] * 8
    assert len(made) == 1


def test_error_is_raised_and_not_kept() -> None:
    cache = ByteCache(10)
    with pytest.raises(ZeroDivisionError):
        cache.get("key", lambda: (1 // 0, 1))
    assert cache.get("key", lambda: (2, 1)) == 2
