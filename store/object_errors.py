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

_SHOWN = (
    (re.compile(r"\x1b\[[0-9;]*m|\u21b3"), ""),
    (re.compile(r"<\?xml.*", re.DOTALL), ""),
    (re.compile(r"(://)[^/\s]+@"), rf"\1{HIDDEN}@"),  # a password may hold an @ itself
    (
        re.compile(
            r"(?i)(<[\w-]*(?:access_?key|secret|token|signature|stringtosign|canonicalrequest|"
            r"credential|passw)[\w-]*>)[^<]*"
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"(?i)((?:bearer|basic)\s+)[\w.~+/=-]{8,}"), rf"\1{HIDDEN}"),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}"), HIDDEN),
    (
        re.compile(
            r"(?i)((?:x-amz-[\w-]+|awsaccesskeyid|sig(?:nature)?|credential|\w*secret\w*|"
            r"\w*passw(?:or)?d|\w*token|\w*access_?key\w*|account_?key)[\"']?\s*[=:]\s*[\"']?)[^&\s,;\"']+"
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"\s+"), " "),
)

_LONGEST = 300


def redact(text: str, longest: int = _LONGEST) -> str:
    """A text as one line in which nothing is left that opens an object store."""
    for name in SECRETS:
        if value := os.environ.get(name):
            text = text.replace(value, HIDDEN).replace(quote(value, safe=""), HIDDEN)
    code = _CODE.search(text)
    for pattern, put in _SHOWN:
        text = pattern.sub(put, text)
    text = text.strip()
    if code and code["xml"] and code["xml"] not in text:
        text = f"{text} {code['xml']}"
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def trouble_of(error: BaseException) -> Trouble | None:
    """Which trouble an error of pyarrow, delta-rs or s3fs tells of; None for any other."""
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
    lowered = text.lower()
    return next((kind for said, kind in _PHRASES.items() if re.search(said, lowered, re.S)), None)


def explain(error: BaseException, uri: str, endpoint: str = "") -> AtlasError | None:
    """The error to raise in place of a library's, `from None`; None where it is of another kind.

    Args:
        error: of pyarrow, delta-rs or s3fs.
        uri: what was asked for.
        endpoint: of the object store.
    """
    kind = trouble_of(error)
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
