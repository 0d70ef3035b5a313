"""One line of the log as JSON text: any value can be in it, no secret of the environment is.

Separate from `flows.log`, which knows where lines go and whose they are; nothing here has state.
"""

import json
import math
import re
from collections.abc import Mapping
from datetime import date, datetime
from numbers import Integral, Real
from typing import Any

HIDDEN = "[hidden]"
"""Stands where a secret was."""

MAX_TEXT = 4000
"""Characters of one text in a line; what is beyond is cut, as a traceback may be long."""

_MAX_DEPTH = 4
_MIN_PART = 8
_SECRET_NAMES = re.compile(
    r"SECRET|TOKEN(?!IZERS)|PASSWORD|PASSWD|CREDENTIAL|API_KEY|ACCESS_KEY|ACCOUNT_KEY|STORAGE_KEY"
    r"|MASTER_KEY|SIGNATURE|AUTH_STRING|_SAS",
    re.IGNORECASE,
)
_SECRET_IN_URL = re.compile(
    r"(?<=://)[^/\s@:]+:(?!\d+/)\S*(?=@)"  # a secret may hold a slash; a port ends at one
    r"|(?:(?<=https://)|(?<=http://))[^/\s@]+(?=@)"  # abfss:// has a container's name there
    r"|(?:(?<=[?&]sig=)|(?<=X-Amz-Signature=)|(?<=X-Amz-Security-Token=))[^&\s\"']+"
)


def list_secrets(environment: Mapping[str, str]) -> frozenset[str]:
    """Values of the variables whose names say that nobody may read them; files are not secret."""
    return frozenset(
        value
        for name, value in environment.items()
        if value and _SECRET_NAMES.search(name) and not name.upper().endswith(("_FILE", "_PATH"))
    )


def encode_line(fields: Mapping[str, object], secrets: frozenset[str] = frozenset()) -> bytes:
    """A line of UTF-8 that any JSON reader reads, its end included.

    Args:
        fields: what JSON cannot hold becomes text, as do NaN and infinity; those that are None are
            left out.
        secrets: a text that is one, or that holds a long one, is hidden.
    """
    plain = {name: _plain(value, secrets) for name, value in fields.items() if value is not None}
    line = json.dumps(plain, ensure_ascii=False, allow_nan=False)
    return line.encode("utf-8", "backslashreplace") + b"\n"  # a lone surrogate stays an escape


def _plain(value: object, secrets: frozenset[str], depth: int = 0) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Integral):  # numpy's too
        return int(value)
    if isinstance(value, Real) and math.isfinite(value):
        return float(value)
    if depth < _MAX_DEPTH and isinstance(value, Mapping):
        return {hide(_text(k), secrets): _plain(v, secrets, depth + 1) for k, v in value.items()}
    if depth < _MAX_DEPTH and isinstance(value, list | tuple):
        return [_plain(item, secrets, depth + 1) for item in value]
    text = hide(_text(value), secrets)
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"


def _text(value: object) -> str:
    """Any object as text, even one that cannot say what it is."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode("utf-8", "backslashreplace")
    try:
        return str(value)
    except Exception as error:  # a line of the log must not end a run
        return f"<{type(value).__name__}: {type(error).__name__}>"


def hide(text: str, secrets: frozenset[str]) -> str:
    """A text without secrets: one that equals a secret, long ones within it, passwords in URLs."""
    if text in secrets:
        return HIDDEN
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _MIN_PART:
            text = text.replace(secret, HIDDEN)
    return _SECRET_IN_URL.sub(HIDDEN, text)
