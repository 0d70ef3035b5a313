"""Which S3 a process means: endpoint, region and profile, from the environment and AWS's files.

Looked up here once because pyarrow, delta-rs and s3fs each look in another order: s3fs ignores
AWS_REGION, delta-rs the profile beside an endpoint, and each has another default. Credentials are
not among it: each library finds them by itself, so that none passes through our hands.
"""

import configparser
import os
import re
from dataclasses import dataclass, field
from typing import Any

import xxhash

from store.errors import ConfigError, StoreAccessError
from store.object_errors import SECRETS, redact

PUBLIC = (
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_EC2_METADATA_DISABLED",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "AZURE_STORAGE_ACCOUNT_NAME",
)
"""Environment variables that name an object store and are no secret."""

ATTEMPTS = 10
"""Of one request, with growing pauses between them."""

CONNECT_S, REQUEST_S = 5, 60

_AHEAD_BYTES = 8 << 20
"""What s3fs reads at once; its own 50 MiB would be held by every corpus file that is open."""

_AWS_FILES = {
    "AWS_CONFIG_FILE": "~/.aws/config",
    "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials",
}

_ENDPOINT = re.compile(r"https?://(\[[0-9A-Fa-f:]+\]|[\w.-]+)(:\d{1,5})?/?")


@dataclass(frozen=True)
class Place:
    """Where S3 is, as this process's environment says it."""

    endpoint: str
    """Empty for Amazon's own."""
    region: str
    profile: str
    mark: str = field(repr=False)
    """Changes with the credentials, so that no connection outlives them."""

    @property
    def shown(self) -> str:
        """The endpoint as a message names it."""
        return self.endpoint or f"Amazon S3 in {self.region}"


def public_environment() -> dict[str, str]:
    """Those variables of this process that name its object store and are no secret.

    An endpoint that holds credentials, or is no address, is left out; `find_place` refuses it.
    """
    found = {name: os.environ[name] for name in PUBLIC if os.environ.get(name)}
    return {
        name: value
        for name, value in found.items()
        if "ENDPOINT" not in name or _ENDPOINT.fullmatch(value)
    }


def find_place() -> Place:
    """Where S3 is.

    Raises:
        ConfigError: the endpoint is no address, or holds credentials; a file is not AWS's.
        StoreAccessError: there is no such profile.
    """
    profile = _set("AWS_PROFILE", "AWS_DEFAULT_PROFILE")
    named = _profile(profile or "default")
    if profile and not named and not _read_ini("AWS_SHARED_CREDENTIALS_FILE").has_section(profile):
        raise StoreAccessError(
            f"AWS_PROFILE is {profile!r}, which is in neither {_file('AWS_CONFIG_FILE')} nor "
            f"{_file('AWS_SHARED_CREDENTIALS_FILE')}: correct it"
        )
    endpoint = _set("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL") or named.get("endpoint_url", "")
    region = _set("AWS_REGION", "AWS_DEFAULT_REGION") or named.get("region", "us-east-1")
    return Place(_checked(endpoint), region, profile, _mark(profile))


def s3fs_options() -> dict[str, Any]:
    """Arguments of s3fs, which reads corpora and lists uploads."""
    where = find_place()
    client = {"region_name": where.region}
    if where.endpoint:
        client["endpoint_url"] = where.endpoint
    config = {
        "connect_timeout": CONNECT_S,
        "read_timeout": REQUEST_S,
        "retries": {"mode": "standard", "max_attempts": ATTEMPTS},
    }
    profile = {"profile": where.profile} if where.profile else {}
    ahead = {"default_block_size": _AHEAD_BYTES}
    return {"client_kwargs": client, "config_kwargs": config, **ahead, **profile}


def has_keys() -> bool:
    """Whether the environment holds credentials itself, and needs no profile or role."""
    return bool(os.environ.get("AWS_ACCESS_KEY_ID"))


def _set(*names: str) -> str:
    """The first of some environment variables that is set and not empty."""
    return next((value for name in names if (value := os.environ.get(name))), "")


def _mark(profile: str) -> str:
    """A digest of what credentials depend on."""
    secrets = [os.environ.get(name, "") for name in SECRETS if name.startswith("AWS_")]
    files = [_file(variable) for variable in _AWS_FILES]
    times = [os.stat(name).st_mtime_ns if os.path.exists(name) else 0 for name in files]
    return xxhash.xxh128_hexdigest(repr((secrets, files, times, profile)).encode())


def _file(variable: str) -> str:
    """A file of the AWS command line, which all of its relatives read."""
    return os.environ.get(variable) or os.path.expanduser(_AWS_FILES[variable])


def _profile(name: str) -> dict[str, str]:
    """A profile of the configuration file; empty where there is none."""
    parser = _read_ini("AWS_CONFIG_FILE")
    section = name if name == "default" else f"profile {name}"
    return dict(parser[section]) if parser.has_section(section) else {}


def _read_ini(variable: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read(_file(variable), "utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{_file(variable)} is no AWS configuration file ({type(error).__name__}): "
            f"correct it, or set {variable}"
        ) from None
    return parser


def _checked(endpoint: str) -> str:
    """An endpoint as all readers take it.

    Raises:
        ConfigError: it is no address of a web server, or holds credentials.
    """
    if endpoint and not _ENDPOINT.fullmatch(endpoint):
        raise ConfigError(
            f"AWS_ENDPOINT_URL is {redact(endpoint)!r}, expected such as https://minio.lab:9000; "
            "credentials belong into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    return endpoint.rstrip("/")
