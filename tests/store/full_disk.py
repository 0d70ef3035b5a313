"""No room for files above a size, as on a disk that has run full, for any user and any folder."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_room(n_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
