"""What the server logs: one JSON line on stderr a request or a trouble, never with the token."""

import json
import logging
import re
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

MASK = "***"
LONGEST_FIELD = 2_000
"""Characters of a path, query string or Referer that a line holds."""

log = logging.getLogger("qkatlas.access")


def mask(text: str, token: str | None) -> str:
    """Text without the token, nor what stands in its place in a path `/t/<token>/`."""
    hidden = re.sub(r"(?<=/t/)[^/?#\s\"]+", MASK, text)
    return hidden.replace(token, MASK) if token else hidden


class JsonLines(logging.Formatter):
    """A record as one line of JSON, with the fields that came as `extra={"fields": {…}}`."""

    def __init__(self, token: str | None) -> None:
        super().__init__()
        self.token = token

    def format(self, record: logging.LogRecord) -> str:
        """The line, masked as a whole so that no message of any library shows the token."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[1]:
            line["exception"] = "".join(traceback.format_exception(record.exc_info[1]))
        return mask(json.dumps(line, ensure_ascii=False, default=str), self.token)


def start_logging(token: str | None) -> None:
    """Send the service's and uvicorn's records to stderr."""
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(JsonLines(token))
    for name, level in {"qkatlas": logging.INFO, "uvicorn": logging.WARNING}.items():
        logger = logging.getLogger(name)
        logger.handlers[:] = [lines]
        logger.setLevel(level)
        logger.propagate = False


def log_request(token: str | None, fields: dict[str, object]) -> None:
    """Log one request; its text is masked and cut."""
    short = {
        name: mask(value, token)[:LONGEST_FIELD] if isinstance(value, str) else value
        for name, value in fields.items()
    }
    log.info("request", extra={"fields": short})
