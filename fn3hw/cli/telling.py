"""Documents of verbs as text for people, where the values that they were made from are on a server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def profile_text(document: Mapping[str, Any], run: str, server: str) -> str:
    """A profile and its cost model."""
    held, full = document["holdout"], document["reference_latency_ms"]
    takes = f"Full network {full:.3f} ms" if full else "Emulated: relative cost only, no latency"
    lines = [
        f"{document['path']}: {document['n_measured']} subnets measured, {document['verdict']}.",
        f"{takes}; rounds of one subnet differ by {_percent(document['noise']['repeat_mape'])}.",
        f"Cost model on {held['n']} subnets it has not seen: mean error {_percent(held['mape'])}.",
        f"Rules found: {document['rules']}",
        *(f"- {reason}" for reason in (*document["reasons"], *document["advice"])),
        f"Next: fn3hw search {run} --profile {document['path']} --server {server}",
    ]
    return "\n".join(lines)


def point_text(document: Mapping[str, Any], *, several: bool = False) -> str:
    """A subnet with its predicted cost; of several budgets, the one that binds."""
    emulated = document["emulated"]
    kind, unit = ("relative_cost", " of the full network's cost") if emulated else ("latency_ms", " ms")
    return (
        f"subnet {document['subnet']}\n"
        f"predicted {_number(document[kind])}{unit} (at most {_number(document[f'{kind}_high'])}), "
        f"peak {_number(document['peak_mib'], 1)} MiB, file {_number(document['size_mib'])} MiB, "
        f"accuracy {_number(document['accuracy'], 2)}% on the search split"
        + (f"; the limit that binds is {document['binding']}" if several else "")
    )


def export_text(document: Mapping[str, Any]) -> str:
    """An exported file and what was measured of it."""
    said, measured = "not measured", document["measured_latency_ms"] or document.get("measured_relative_cost")
    if measured:
        unit = " ms" if document["measured_latency_ms"] else " of the full network's cost"
        of = f" at p{document['percentile']}" if document["percentile"] != 50 else ""
        memory = f", peak {peak:.1f} MiB" if (peak := document["measured_peak_mib"]) else ""
        said = f"measured {measured:.3f}{unit}{of}{memory}, budget {'met' if document['budget_met'] else 'missed'}"
    return (
        f"{document['path']} ({document['size_mib']:.3f} MiB): {said}\n{point_text(document)}\n"
        f"test accuracy {document['test_accuracy']:.2f}%, "
        f"largest difference to the masked network {document['max_abs_diff']:.2g}"
    )


def _number(value: float | None, digits: int = 3) -> str:
    return "?" if value is None else f"{value:.{digits}f}"


def _percent(share: float | None) -> str:
    return "?" if share is None else f"{100 * share:.2f}%"
