"""What `stylus models` does; it needs no engine."""

from __future__ import annotations

import json
from pathlib import Path

from .errors import NoModel
from .weights import CLAP, KNOWN, fingerprint, is_offline, listed, located, verify


def run_models_list(as_json: bool) -> None:
    """Print every model: where it comes from, whether it is here, its SHA-256 where that is known."""
    rows = []
    for weights in (*KNOWN.values(), CLAP):
        try:
            path: Path | None = located(weights, download=False)
        except Exception:  # absent, in whatever way the hub's cache says it
            path = None
        digest = fingerprint(weights, path) if path else None
        rows.append(
            {"name": weights.name, "kind": weights.kind, "source": weights.source, "size": weights.size,
             "here": path is not None, "sha256": digest, "note": weights.note}
        )  # fmt: skip
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        state = (
            f"here  {str(row['sha256'])[:12]}" if row["here"] else "not here" + (" (offline)" if is_offline() else "")
        )
        source = "in the package" if row["kind"] == "embedded" else row["source"]
        print(f"{row['name']:<15} {row['size']:>6}  {state:<20}  {row['note']} ({source})")


def run_models_verify(name: str) -> None:
    """Compare a model's weights with the SHA-256 that was kept when they were first used."""
    digest, same = verify(listed(name))
    print(f"sha256 {digest}")
    if not same:
        raise NoModel(f"{name}: the weights are not those that were there before; delete them and pull again")
