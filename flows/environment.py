"""The environment variables that QK Atlas reads or sets, all in one place.

Set before Ray and Prefect are imported, as both read them then. What the user has set stays.
"""

import os

from store.cache_folder import cache_folder

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "1",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    "TOKENIZERS_PARALLELISM": "true",
    "GOMP_SPINCOUNT": "0",  # torch's threads must not spin while others write
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}

_HUB = ("HF_ENDPOINT", "HF_HUB_OFFLINE")
"""Where models come from; a token for the hub is a secret, which nodes hold themselves."""

_ONE_LINE = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_HANDLERS_DEBUG_LEVEL": "CRITICAL",
}
"""Prefect logs each error with its traceback; the command line says it in one line instead."""


def prepare_environment() -> None:
    """Set what keeps the libraries quiet and lets workers share compiled code."""
    quiet = dict(_QUIET)
    if not is_debugging():
        quiet |= _ONE_LINE
    if prefect_url() is None:
        quiet["PREFECT_LOGGING_TO_API_ENABLED"] = "false"  # nobody will look at them
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("NUMBA_CACHE_DIR", str(cache_folder() / "numba"))


def worker_environment() -> dict[str, str]:
    """What Ray workers get of this process's environment; no secret, as Ray's pages show it.

    Folders (of models, of compiled code) are passed on within this machine alone; nodes of a
    cluster have their own (`prepare_environment` runs there, too).
    """
    from store.object_store import public_environment  # pyarrow loads for long

    names = [*_QUIET, *_HUB]
    if ray_address() is None:
        names += ["NUMBA_CACHE_DIR", "HF_HOME"]
    found = {name: os.environ[name] for name in names if name in os.environ}
    return found | public_environment()


def ray_address() -> str | None:
    """The Ray cluster to use; None means to start one here."""
    return os.environ.get("RAY_ADDRESS") or None


def prefect_url() -> str | None:
    """The Prefect server to use; None means an ephemeral one."""
    return os.environ.get("PREFECT_API_URL") or None


def prefect_ui() -> str | None:
    """Where Prefect's page is, if it is not where the server is."""
    return os.environ.get("PREFECT_UI_URL") or None


def ray_dashboard() -> str | None:
    """Where Ray's page is; Ray's own commands read the same variable."""
    return os.environ.get("RAY_API_SERVER_ADDRESS") or None


def is_debugging() -> bool:
    """Whether errors come with their traceback: QKATLAS_DEBUG=1."""
    return os.environ.get("QKATLAS_DEBUG", "0") not in ("", "0")


LOG_VARIABLE = "QKATLAS_LOG"
RUN_VARIABLE = "QKATLAS_RUN"


def log_target() -> str | None:
    """Where structured logs go: a path, or - for stderr; None means nowhere."""
    return os.environ.get(LOG_VARIABLE) or None


def run_id() -> str | None:
    """The run that this process works for; None where no run has begun."""
    return os.environ.get(RUN_VARIABLE) or None
