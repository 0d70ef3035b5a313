"""Sizes and durations as a person reads them."""


def format_bytes(n_bytes: float) -> str:
    """A size with a unit, such as 1.3 GB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{n_bytes / size:,.1f} {unit}"
    return f"{n_bytes:,.0f} B"


def format_seconds(seconds: float) -> str:
    """A duration in the two units that matter, such as 1 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86_400:,} d {whole % 86_400 // 3600:02} h"


def short(n: float) -> str:
    """An amount to three digits, or to its last whole one where it has more."""
    return f"{n:,.0f}" if n >= 100 else f"{n:.3g}"
