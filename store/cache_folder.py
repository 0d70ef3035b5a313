"""Where this program keeps files of its own, apart from any atlas."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where QK Atlas keeps what it can make again: `$XDG_CACHE_HOME/qkatlas`."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "qkatlas"
