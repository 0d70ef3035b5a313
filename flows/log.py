"""Structured logs: one JSON object a line, with the time, the run, the shard and the worker.

Off unless QKATLAS_LOG names a file, or `-` for stderr. The driver and the workers on its machine
append to one file; a worker on another machine appends to the file of that name there.
`docs/observability.md` lists every event with its fields.
"""

import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from threading import Lock
from typing import Any
from uuid import uuid4

from flows.environment import LOG_VARIABLE, RUN_VARIABLE, log_target, run_id
from flows.log_line import encode_line, list_secrets
from store.errors import ConfigError

logger = logging.getLogger("qkatlas")
logger.propagate = False  # Prefect's and Ray's handlers would print it a second time
logger.setLevel(logging.INFO)

STDERR = "-"
HOST = "{host}"
"""In the file's name: this machine's name, for a folder that several machines share."""

LEVELS = {
    "shard_failed": logging.WARNING,
    "worker_died": logging.WARNING,
    "head_failed": logging.WARNING,
    "shard_quarantined": logging.ERROR,
    "run_failed": logging.ERROR,
}
"""Events that are more than news; all others are INFO."""

_bound: dict[str, object] = {}
_turn = Lock()


def log_event(event: str, **fields: object) -> None:
    """Write a line about something that happened; nothing where logs are off.

    Args:
        event: its name, such as `shard_done`.
        fields: what is known of it; any value, of which JSON holds what it can and the rest
            becomes text. None is left out. `time`, `level` and `event` are ours.
    """
    target = log_target()
    if target is None:
        return
    _use(target)
    level = LEVELS.get(event, logging.INFO)
    logger.log(level, event, extra={"fields": {**_start_fields(), **_bound, **fields}})


def configure_logs() -> None:
    """Make sure that lines can be written; elsewhere the first line sets up what it needs.

    Raises:
        ConfigError: QKATLAS_LOG names a file that cannot be written.
    """
    target = log_target()
    if target is None:
        return
    if target != STDERR:
        _check_writable(target)
    _use(target)


def bind(**fields: object) -> ExitStack:
    """Put fields into every later line of this process, such as `run` or `worker`.

    They hold for all threads, as a run's stages may run in several. A field that is None is
    taken away.

    Returns:
        What takes the fields away again when it is closed, as at the end of a `with` block; to
        drop it means that they stay.
    """
    global _bound
    with _turn:
        before = _bound
        _bound = {name: value for name, value in {**before, **fields}.items() if value is not None}
    stack = ExitStack()
    stack.callback(_restore, before)
    return stack


@contextmanager
def log_run(**fields: object) -> Iterator[None]:
    """Give what runs inside a run id of its own, and lines about its start and its end.

    Args:
        fields: what the first line says of it, such as the atlas.

    Raises:
        ConfigError: QKATLAS_LOG names a file that cannot be written.
    """
    with bind(run=new_run_id()):
        configure_logs()
        log_event("run_started", **fields)
        started = time.monotonic()
        try:
            yield
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
            log_event("run_failed", seconds=time.monotonic() - started, reason=reason)
            raise
        log_event("run_done", seconds=time.monotonic() - started)


def log_environment() -> dict[str, str]:
    """What a worker needs so that its lines go where this process's go and name the same run."""
    target = log_target()
    if target is None:
        return {}
    where = target if target == STDERR else os.path.abspath(target)
    run = current_run()
    return {LOG_VARIABLE: where} | ({} if run is None else {RUN_VARIABLE: run})


def current_run() -> str | None:
    """The run that this process works for: bound here, or handed to it by its driver."""
    run = _bound.get("run")
    return run_id() if run is None else str(run)


def new_run_id() -> str:
    """An id that no other run has: the time to the second in UTC, and 4 random bytes."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid4().hex[:8]}"


def _restore(fields: dict[str, object]) -> None:
    global _bound
    with _turn:
        _bound = fields


def _start_fields() -> dict[str, object]:
    return {"run": run_id(), "host": socket.gethostname(), "pid": os.getpid()}


def _use(target: str) -> None:
    """Let the logger write to `target` alone."""
    with _turn:
        for handler in list(logger.handlers):
            if isinstance(handler, LineHandler):
                if handler.target == target:
                    return
                logger.removeHandler(handler)
        logger.addHandler(LineHandler(target))


def _check_writable(target: str) -> None:
    if "://" in target:
        raise ConfigError(
            f"{LOG_VARIABLE}: {target} is no file of this machine; name a path, or - for stderr"
        )
    try:
        os.close(_open(target))
    except OSError as error:
        raise ConfigError(
            f"{LOG_VARIABLE}: {_path(target)} cannot be written ({error.strerror}); name a file in "
            "a folder that is there and that you may write to, or - for stderr"
        ) from error


def _path(target: str) -> str:
    return target.replace(HOST, socket.gethostname())


def _open(target: str) -> int:
    return os.open(_path(target), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


class LineHandler(logging.Handler):
    """Appends each line in one call, so that lines of several processes never mix.

    The file is opened for each line: it may be moved away while a run goes on, and a process that
    was forked shares nothing.
    """

    def __init__(self, target: str) -> None:
        """Write to a path, or to stderr where it is `-`."""
        super().__init__()
        self.target = target
        self._has_failed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line; what goes wrong is told once on stderr and never stops the run."""
        try:
            self._write(_describe(record))
        except Exception as error:
            self._tell(error)

    def _write(self, line: bytes) -> None:
        if self.target == STDERR:
            sys.stderr.write(line.decode())
            sys.stderr.flush()
            return
        file = _open(self.target)
        try:
            os.write(file, line)
        finally:
            os.close(file)

    def _tell(self, error: Exception) -> None:
        if not self._has_failed:
            self._has_failed = True
            print(f"the log {self.target} is not written any more: {error}", file=sys.stderr)


def _describe(record: logging.LogRecord) -> bytes:
    fields: dict[str, Any] = getattr(record, "fields", {})
    first = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "event": record.getMessage(),
    }
    rest = {name: value for name, value in fields.items() if name not in first}
    return encode_line(first | rest, list_secrets(os.environ))
