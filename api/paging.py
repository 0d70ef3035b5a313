"""Where a page of a long reply begins: a version of the atlas and a row of it."""

import base64
import binascii
from dataclasses import dataclass
from typing import Self

import orjson

from store.errors import QueryError

DEFAULT_ROWS = 10_000
MAX_ROWS = 1_000_000


@dataclass(frozen=True)
class Cursor:
    """The next page: clients send its text back and do not look inside."""

    version: str
    offset: int

    def to_text(self) -> str:
        """As base64url."""
        packed = orjson.dumps([self.version, self.offset])
        return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The cursor that `to_text` wrote.

        Raises:
            QueryError: it did not.
        """
        try:
            packed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            version, offset = orjson.loads(packed)
            # Beyond 2^53 an offset overflows what reads it.
            if isinstance(version, str) and type(offset) is int and 0 <= offset < 1 << 53:
                return cls(version, offset)
        except (binascii.Error, ValueError, TypeError):
            pass
        raise QueryError("no such cursor: send back X-Next-Cursor of the page before, as it is")
