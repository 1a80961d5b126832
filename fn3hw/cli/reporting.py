"""What a profile says: as text for people, as a JSON document, and as a picture."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fn3hw.cli.console import Console, duration, error_body
from fn3hw.cli.several import gravest
from fn3hw.cost import CostModel, fit_cost
from fn3hw.cost.audit import describe
from fn3hw.cost.plot import plot_profile
from fn3hw.errors import Fn3hwError, NoisyMeasurement
from fn3hw.profiler import DEFAULT_RUNTIME, Profile

USABLE = 0.5
"""Mean error of a cost model from which on a search under it makes no sense."""


def report(
    console: Console, measured: Profile, path: Path, plot: Path | None, *, error: NoisyMeasurement | None = None
) -> None:
    """Say what a profile holds, and draw it where asked to."""
    cost = fit_cost(measured)
    if plot is not None:
        plot_profile(measured, cost, plot)
    console.result(summary(measured, cost, path), text(measured, cost, path), error=error)


def report_several(
    console: Console, paths: Mapping[str, Path], found: Mapping[str, Profile | Fn3hwError], *, allow_noisy: bool
) -> None:
    """Fit the cost models, show all profiles, and end in the gravest error."""
    documents, texts, errors = [], [], {}
    for name, path in paths.items():
        document: dict[str, Any] = {"name": name, "path": str(path)}
        error: Fn3hwError | None
        try:
            measured = found[name]
            if isinstance(measured, Fn3hwError):
                raise measured
            cost = fit_cost(measured)
            document |= summary(measured, cost, path)
            texts.append(text(measured, cost, path))
            error = None if allow_noisy else noise(measured)
        except Fn3hwError as failed:
            error = failed
            alone = f"fn3hw profile {path.parent} --device {shlex.quote(name)} --output {path}"
            texts.append(f"{name}: failed. To go on with it alone, other options as before: {alone}")
        if error is not None:
            document["error"] = error_body(error)
            errors[name] = error
        documents.append(document)
    console.result({"profiles": documents}, "\n\n".join(texts), error=gravest(errors))


def noise(measured: Profile) -> NoisyMeasurement | None:
    """The error to end in where the measurement is too noisy to trust."""
    try:
        measured.require_stable()
    except NoisyMeasurement as error:
        return error
    return None


def advice(measured: Profile, cost: CostModel) -> list[str]:
    """What to do about the measurement, and about a cost model that cannot be used."""
    found = list(measured.advice)
    if not cost.holdout.mape <= USABLE:
        found.append(
            f"The cost model cannot be used: on subnets that it has not seen it errs by more than {100 * USABLE:.0f}%. "
            "Measure more of them (--subnets), or by need (--target-mape 0.05)."
        )
    return found


def summary(measured: Profile, cost: CostModel, path: Path) -> dict[str, Any]:
    """A profile and its cost model as JSON."""
    return {
        "path": str(path),
        "device": measured.device,
        "emulated": measured.emulated,
        "verdict": measured.verdict,
        "reasons": list(measured.reasons),
        "advice": advice(measured, cost),
        "runtime": measured.settings["runtime"],
        "n_measured": len(measured.fitted),
        "sampling": measured.settings.get("sampling"),
        "reference_latency_ms": measured.reference.latency_ms,
        "reference_instructions": measured.reference.instructions,
        "rules": str(cost.rules),
        "holdout": cost.holdout.to_json(),
        "audit": cost.audit.to_json(),
        "noise": {"repeat_mape": measured.noise.repeat_mape},
    }


def text(measured: Profile, cost: CostModel, path: Path) -> str:
    """A profile and its cost model for people."""
    held, full = cost.holdout, measured.reference
    takes = f"Full network {full.latency_ms:.3f} ms" if full.latency_ms else "Emulated: relative cost only, no latency"
    if full.instructions:
        takes += f"; full network {full.instructions:,.0f} instructions"
    lines = [
        f"{path}: {len(measured.measurements)} subnets measured, {measured.verdict}.",
        f"{takes}; rounds of one subnet differ by {100 * measured.noise.repeat_mape:.2f}%.",
        *_full_text(measured),
        *_runtime_text(measured),
        *_sampling_text(measured),
        f"Cost model on {held.n} subnets it has not seen: mean error {100 * held.mape:.2f}%, "
        f"{100 * held.within_10pct:.0f}% within 10%, Spearman {held.spearman:.3f}"
        + (
            "."
            if held.coverage is None
            else f"; {100 * held.coverage:.0f}% lie in their {100 * cost.level:.0f}% intervals."
        ),
        *describe(cost.audit),
        f"Rules found: {cost.rules}",
        *(f"- {reason}" for reason in (*measured.reasons, *advice(measured, cost))),
        f"Next: fn3hw search RUN --profile {path}",
    ]
    return "\n".join(lines)


def _full_text(measured: Profile) -> list[str]:
    """Tail latency, loading, memory and size of the full network."""
    full, reference = measured.full, measured.reference
    lines = []
    if reference.latency_p90_ms and reference.latency_p99_ms:
        p90, p99 = reference.latency_p90_ms, reference.latency_p99_ms
        lines.append(f"Of its runs 90% take at most {p90:.3f} ms, 99% at most {p99:.3f} ms.")
    if full is not None and not measured.emulated:
        lines.append(
            f"Its file of {full.size_bytes / 2**20:.2f} MiB loads in {full.load_ms:.0f} ms; memory peaks at "
            f"{full.peak_mib:.0f} MiB, {full.peak_mib_no_arena:.0f} with the arena off."
        )
    return lines


def _runtime_text(measured: Profile) -> list[str]:
    """What a sweep found, and what it was worth."""
    trials = measured.settings.get("sweep")
    if trials is None:
        return []
    used, usual = measured.settings["runtime"], DEFAULT_RUNTIME.to_json()
    changed = [f"{name} {value}" for name, value in used.items() if value != usual[name]]
    refused = sum(bool(trial["refused"]) for trial in trials)
    return [
        f"Fastest of {len(trials) + 1} settings of ONNX Runtime: {', '.join(changed) or 'the usual ones'}"
        + (f"; {refused} of them cannot run the network." if refused else ".")
    ]


def _sampling_text(measured: Profile) -> list[str]:
    """Why measuring by need ended."""
    sampling = measured.settings.get("sampling")
    if sampling is None:
        return []
    because = {"target": "the target error was met", "time": "the time was up", "subnets": "there were enough of them"}
    return [
        f"Measured by need: {len(measured.fitted)} subnets in {duration(sampling['seconds'])}, until "
        f"{because[sampling['stopped_by']]}; left-out subnets are predicted within {100 * sampling['error']:.2f}%."
    ]
