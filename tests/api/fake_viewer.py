"""A viewer of two files, in a wheel or installed, in place of the real one."""

import dataclasses
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

from api.viewers import EMBEDDING_ATLAS, Viewer

PAGE = b'<!doctype html><script type="module" src="./assets/index.js"></script>'

FILES: dict[str, bytes] = {
    "embedding_atlas/static/index.html": PAGE,
    "embedding_atlas/static/assets/index.js": b"export {};",
    "embedding_atlas/static/assets/a.wasm": b"\0asm",
    "embedding_atlas/server.py": b"raise SystemExit",
    "embedding_atlas-0.22.0.dist-info/METADATA": b"License: MIT",
    "embedding_atlas-0.22.0.dist-info/licenses/LICENSE": b"MIT",
    "embedding_atlas-0.22.0.dist-info/RECORD": b"",
}


def write_wheel(file: Path, files: Mapping[str, bytes] = FILES) -> Viewer:
    """Write a wheel; gives the viewer that it is pinned for."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    return dataclasses.replace(EMBEDDING_ATLAS, sha256=sha256)


def install_fake(cache: Path) -> None:
    """Put the two files where an installed viewer is, below a folder of caches."""
    site = cache / "qkatlas" / "viewers" / "embedding-atlas-0.22.0" / "site"
    for name, content in FILES.items():
        if name.startswith("embedding_atlas/static/"):
            file = site / name.removeprefix("embedding_atlas/static/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
