"""Trouble with an object store as one line that names what to do, and holds no credential.

pyarrow, delta-rs and s3fs each word the same trouble in their own way, and stores put access keys,
signatures and session tokens into their replies, so their texts are read for the error's code
and never shown whole.
"""

import os
import re
from typing import Literal
from urllib.parse import quote

from store.errors import AccessDeniedError, AtlasError, ObjectStoreError, StoreAccessError

SECRETS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_CLIENT_SECRET",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_CLIENT_SECRET",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
)
"""Environment variables whose values are never shown."""

HIDDEN = "***"

Trouble = Literal[
    "key", "secret", "token", "denied", "none", "profile", "bucket", "region", "clock", "network"
]

_CODES: dict[str, Trouble] = {
    "invalidaccesskeyid": "key",
    "unrecognizedclient": "key",
    "invalidclienttokenid": "key",
    "signaturedoesnotmatch": "secret",
    "expiredtoken": "token",
    "invalidtoken": "token",
    "tokenrefreshrequired": "token",
    "accessdenied": "denied",
    "forbidden": "denied",
    "allaccessdisabled": "denied",
    "nosuchbucket": "bucket",
    "invalidbucketname": "bucket",
    "authorizationheadermalformed": "region",
    "permanentredirect": "region",
    "illegallocationconstraintexception": "region",
    "requesttimetooskewed": "clock",
    "networkconnection": "network",
    "internalfailure": "network",
    "serviceunavailable": "network",
    "slowdown": "network",
    "toomanyrequests": "network",
    "throttling": "network",
    "requesttimeout": "network",
    "internalerror": "network",
}

_PHRASES: dict[str, Trouble] = {
    "profile .{0,200}(?:could not be found|was not defined)": "profile",
    "no credentials found|unable to locate credentials|loading credentials": "none",
    "lacked the necessary privileges|status 403|403 forbidden|permission denied": "denied",
    "the region '[^']*' is wrong|configured region is|http status 301|301 moved": "region",
    "bucket does not exist|status 404 .{0,40}bucket": "bucket",
    "error sending request|could not connect|timed out|timeout|curlcode|dns error": "network",
    "connection (?:refused|reset|closed|was closed)|connect error|max_retries": "network",
    "response body error|reading a body|status(?: code)?:? 429|429 too many": "network",
    "status(?: code)?:? 50[0234]|50[0234] (?:internal|bad gateway|service|gateway)": "network",
}

_SAYS: dict[Trouble, str] = {
    "key": "it does not know the access key: set AWS_ACCESS_KEY_ID, or AWS_PROFILE",
    "secret": "the secret key does not fit the access key: set AWS_SECRET_ACCESS_KEY, or "
    "AWS_PROFILE",
    "token": "the session token is invalid or has expired: get new credentials",
    "denied": "access is denied: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, "
    "of one who may list, read and write there",
    "none": "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
    "AWS_PROFILE",
    "profile": "there is no such profile: set AWS_PROFILE to one of `aws configure list-profiles`",
    "bucket": "there is no such bucket: create it, or correct its name",
    "region": "the bucket is in another region{}: set AWS_REGION",
    "clock": "this machine's clock is wrong: set it",
    "network": "{} does not answer: check AWS_ENDPOINT_URL and the network, then run the same "
    "command again",
}

_ELSEWHERE = "access is refused: docs/object-stores.md names the variables of this store"

_REGION = re.compile(r"expecting '([a-z0-9-]+)'|bucket is located in '([a-z0-9-]+)'")

_CODE = re.compile(
    r"<Code>(?P<xml>\w+)</Code>|ExceptionName: (?P<unknown>\w+)|AWS Error (?P<arrow>[A-Z_]+)"
    r"|An error occurred \((?P<boto>\w+)\)"
)

CREDENTIALS = re.compile(
    r"://[^/\s@:]+:(?!\d+(?:/|$))\S*@"  # a secret key may hold a slash; a port ends at one
    r"|(?<!abfs)(?<!abfss)(?<!wasb)(?<!wasbs)://[^/\s]*@"  # there a container stands before the @
    r"|[?&](?:[Xx]-[Aa]mz-|sig=|[Ss]ignature=|access_key=|secret_key=|session_token=)"
)
"""What a URI with credentials in it has; nothing else than JavaScript reads, too."""

_SHOWN = (
    (re.compile(r"\x1b\[[0-9;]*m|\u21b3"), ""),
    (re.compile(r"<\?xml.*", re.DOTALL), ""),
    (re.compile(r"(://)(?:[^/\s@:]+:(?!\d+/)\S*|[^/\s]+)@"), rf"\1{HIDDEN}@"),
    (
        re.compile(
            r"(?i)(<[\w-]{0,40}(?:access_?key|secret|token|signature|stringtosign|"
            r"canonicalrequest|credential|passw)[\w-]{0,40}>)[^<]*"
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"(?i)((?:bearer|basic)\s+)[\w.~+/=-]{8,}"), rf"\1{HIDDEN}"),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}"), HIDDEN),
    (
        re.compile(
            r"(?i)((?:x-amz-[\w-]{1,40}|awsaccesskeyid|sig(?:nature)?|credential|"
            r"secret\w{0,40}|passw(?:or)?d|token|access_?key\w{0,40}|account_?key)[\"']?\s*[=:]\s*[\"']?)[^&\s,;\"']+"
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"\s+"), " "),
)

_LONGEST = 300

_LONGEST_SECRET = 4_096
"""Characters; a session token has some thousand."""

_PATHS = re.compile(r"(?<![^\s<>()'\"])[^\s<>()'\"/]*/[^\s<>()'\"]*")


def redact(text: str, longest: int = _LONGEST) -> str:
    """A text as one line in which nothing is left that opens an object store."""
    for name in SECRETS:
        if value := os.environ.get(name):
            text = text.replace(value, HIDDEN).replace(quote(value, safe=""), HIDDEN)
    code = _CODE.search(text)
    text = _hide(text, longest).strip()
    if code and code["xml"] and code["xml"] not in text:
        text = f"{text} {code['xml']}"
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _hide(text: str, longest: int) -> str:
    """As much of a text as may be shown, without secrets.

    The patterns take long over a long text, so it is cut before them; a secret that this cut in
    two may be unlike any, so what stands at the end is left out.
    """
    begin = text[: longest + 2 * _LONGEST_SECRET]
    is_cut = len(begin) < len(text)
    for pattern, put in _SHOWN:
        begin = pattern.sub(put, begin)
    if is_cut:
        last = len(begin) - begin.rfind(" ")  # a secret has no space
        begin = begin[: -min(last, _LONGEST_SECRET)] + "…"
    return begin


def trouble_of(error: BaseException, path: str = "") -> Trouble | None:
    """Which trouble an error of pyarrow, delta-rs or s3fs tells of; None for any other.

    Args:
        error: as it was raised.
        path: what was asked for; words in its name say nothing.
    """
    chain: BaseException | None = error
    texts: list[str] = []
    while chain is not None and len(texts) < 5:
        texts.append(f"{type(chain).__name__}: {chain}")
        chain = chain.__cause__
    text = "\n".join(texts)
    for found in _CODE.finditer(text):
        code = next(part for part in found.groups() if part).replace("_", "").lower()
        if code in _CODES:
            return _CODES[code]
    if " " in path:
        text = text.replace(path.partition("://")[2] or path, "/")
    lowered = _PATHS.sub(" ", text).lower()
    return next((kind for said, kind in _PHRASES.items() if re.search(said, lowered, re.S)), None)


def explain(error: BaseException, uri: str, endpoint: str = "") -> AtlasError | None:
    """The error to raise in place of a library's, `from None`; None where it is of another kind.

    Args:
        error: of pyarrow, delta-rs or s3fs.
        uri: what was asked for.
        endpoint: of the object store.
    """
    kind = trouble_of(error, uri)
    if kind is None:
        return None
    says = _SAYS[kind] if uri.startswith("s3") or kind == "network" else _ELSEWHERE
    if kind == "region":
        found = _REGION.search(str(error))
        name = next((part for part in found.groups() if part), None) if found else None
        says = says.format(f", {name}" if name else "")
    elif kind == "network":
        says = says.format(redact(endpoint) or "the object store")
        return ObjectStoreError(f"{redact(uri)}: {says}")
    kind_of_error = AccessDeniedError if kind == "denied" else StoreAccessError
    return kind_of_error(f"{redact(uri)}: {says}")
