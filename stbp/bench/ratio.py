"""Ratios of the peers' time or memory to ours."""

from typing import Any

from stbp.bench.subject import OURS

Rows = dict[str, dict[str, Any]]


def value(row: dict[str, Any], key: str) -> float | None:
    """The number behind a row's entry: the median of a spread, the seconds of an epoch."""
    found = row.get(key)
    return found.get("median", found.get("seconds")) if isinstance(found, dict) else found


def ratios(rows: Rows, key: str) -> dict[str, Any] | None:
    """Ratio of the best peer's need to ours, among uncompiled peers and among all; None without numbers of both."""
    found = {}
    ours = value(rows[OURS], key)
    for which, compiled_too in (("uncompiled", False), ("all", True)):
        peers = {
            name: v
            for name, row in rows.items()
            if row["kind"] == "peer" and (compiled_too or not row["compiled"]) and (v := value(row, key)) is not None
        }
        if not peers or ours is None:
            return None
        best = min(peers, key=lambda name: peers[name])
        found[which] = {"peer": best, "value": peers[best], "ratio": peers[best] / ours}
    return found
