"""Which statements of the lists the gate refuses on the DuckDB at hand, as Markdown.

`python -m tests.api.hostile_report`, in any environment with DuckDB: the service is pinned to one
version, and this says what the next one would need.
"""

import sys
from collections import Counter

import duckdb

from api.gate import check_query, check_text
from store.errors import QueryError
from tests.api.fuzz import make_views
from tests.api.honest import HONEST
from tests.api.hostile import HOSTILE, LOADS


def find_refusal(
    connection: duckdb.DuckDBPyConnection, text: str, views: frozenset[str]
) -> str | None:
    """Why the gate refuses a text; None where it lets it through."""
    try:
        check_text(text)
        check_query(connection, text, views)
    except QueryError as error:
        return str(error).split("\n")[0]
    return None


def main() -> int:
    """Print the report; 1 where a hostile statement passes."""
    with duckdb.connect(config={"python_enable_replacements": False}) as connection:
        views = make_views(connection)
        hostile = {name: find_refusal(connection, text, views) for name, text in HOSTILE.items()}
        honest = {
            text: find_refusal(connection, text, views) for text in [*HONEST, *LOADS.values()]
        }
    passed = [name for name, reason in hostile.items() if reason is None]
    refused = {text: reason for text, reason in honest.items() if reason is not None}
    kinds = Counter(name.split(":")[0] for name in hostile)
    open_kinds = Counter(name.split(":")[0] for name in passed)
    print(f"# Gate on DuckDB {duckdb.__version__}\n")
    print("| kind | statements | refused |\n|---|---|---|")
    for kind, n in kinds.items():
        print(f"| {kind} | {n} | {n - open_kinds[kind]} |")
    print(f"| all | {len(hostile)} | {len(hostile) - len(passed)} |\n")
    print(f"Hostile and let through: {', '.join(passed) or 'none'}.\n")
    print(f"Honest and refused: {len(refused)} of {len(honest)}.\n")
    for text, reason in refused.items():
        print(f"- `{text[:100]!r}`: {reason[:160]}")
    return 1 if passed else 0


if __name__ == "__main__":
    sys.exit(main())
