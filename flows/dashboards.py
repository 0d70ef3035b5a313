"""Where the pages of Prefect and Ray are, told from the environment and from Ray itself.

Separate so that a look at an atlas can name them without loading either.
"""

import re

from rich.console import Console
from rich.markup import escape

from flows.environment import prefect_ui, prefect_url, ray_dashboard

_ACCOUNT = re.compile(r"://[^/@]*@")


def prefect_dashboard() -> str | None:
    """The address of Prefect's page: PREFECT_UI_URL, or the server's; None without a server."""
    url = prefect_ui()
    if url is None and (api := prefect_url()) is not None:
        url = api.rstrip("/").removesuffix("/api")
        if "api.prefect.cloud" in url:  # its page lies at an address of its own
            return None
    return None if url is None else _without_account(url)


def list_dashboards(ray_url: str | None = None) -> dict[str, str]:
    """Addresses of the pages that are known, by name.

    Args:
        ray_url: Ray's, as `ray.init` told it; without it RAY_API_SERVER_ADDRESS, Ray's own
            variable, names it.
    """
    ray = ray_url or ray_dashboard()
    found = {"Prefect": prefect_dashboard(), "Ray": None if ray is None else _without_account(ray)}
    return {name: url for name, url in found.items() if url is not None}


def show_dashboards(console: Console, ray_url: str | None = None) -> None:
    """Print a line for each page that is known."""
    for name, url in list_dashboards(ray_url).items():
        console.print(f"[dim]{name}: {escape(url)}", highlight=False, soft_wrap=True)


def _without_account(url: str) -> str:
    """An address that a browser takes, without a name and a password in it."""
    return _ACCOUNT.sub("://", url if "://" in url else f"http://{url}")
