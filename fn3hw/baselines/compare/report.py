"""The report of a contest: a page with interactive pictures, a PNG, tables as CSV, and everything as JSON.

The page holds the library that draws it: it needs no network, and one file can be sent around.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure

from fn3hw.baselines.compare.scoring import LEVEL, Measured, MethodScore, Scores
from fn3hw.space.files import plain, write_figure, write_text

_COLOURS = (
    "#1f5fa8",
    "#d1495b",
    "#2a9d8f",
    "#8a5a44",
    "#7b4fa3",
    "#c98b1d",
    "#5b8c2a",
    "#3aa6c9",
    "#666666",
    "#c94f9d",
)
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}}
table{{border-collapse:collapse;font-variant-numeric:tabular-nums}}td,th{{padding:.2rem .7rem;text-align:right}}
td:first-child,th:first-child{{text-align:left}}tr{{border-bottom:1px solid #ddd}}
.table{{overflow-x:auto}}</style></head><body><h1>{title}</h1>
<p>{summary}</p>{body}</body></html>
"""


def write_report(folder: Path, scores: Scores, settings: Mapping[str, Any], *, unit: str = "ms") -> dict[str, Path]:
    """Write ``report.html``, ``report.png``, ``methods.csv``, ``curves.csv`` and ``report.json``; gives their paths.

    Args:
        folder: where to write.
        scores: what to show.
        settings: of the contest, for the JSON and the page.
        unit: of costs.

    Raises:
        InputError: a file cannot be written.
    """
    paths = {
        "html": folder / "report.html",
        "png": folder / "report.png",
        "methods": folder / "methods.csv",
        "curves": folder / "curves.csv",
        "json": folder / "report.json",
    }
    table = methods_table(scores)
    write_text(paths["json"], json.dumps(plain({**settings, **scores.to_json()}), indent=1) + "\n")
    write_text(paths["methods"], table.to_csv(index=False))
    write_text(paths["curves"], curves_table(scores).to_csv(index=False))
    write_figure(paths["png"], _picture(scores, unit))
    write_text(paths["html"], _page(scores, table, settings, unit))
    return paths


def methods_table(scores: Scores) -> pd.DataFrame:
    """A row per method, the best first."""
    rows = []
    for one in by_hypervolume(scores):
        reached = one.reached or (np.nan, np.nan)
        rows.append(
            {
                "method": one.name,
                **_columns("hypervolume", one.hypervolume),
                **({} if one.unseen is None else _columns("unseen", one.unseen)),
                **_columns("at budgets", one.chosen),
                "evaluations": one.evaluations,
                "seconds": one.seconds,
                "thinking": one.thinking,
                "evaluations to reach the first": reached[0],
                "seconds to reach the first": reached[1],
                "failed": one.failed,
                "infeasible": one.infeasible,
                **{f"accuracy at {budget:.4g}": found.mean for budget, (found, _) in one.at_budget.items()},
            }
        )
    return pd.DataFrame(rows)


def by_hypervolume(scores: Scores) -> list[MethodScore]:
    """The methods, the best first: on images that no search saw, where there are such."""
    return sorted(scores.methods, key=lambda one: -(one.unseen or one.hypervolume).mean.mean)


def _columns(name: str, figure: Measured) -> dict[str, float]:
    return {
        name: figure.mean.mean,
        f"{name}, low": figure.mean.low,
        f"{name}, high": figure.mean.high,
        f"{name}, difference": figure.difference.mean,
        f"{name}, p": figure.p_value,
    }


def curves_table(scores: Scores) -> pd.DataFrame:
    """Hypervolume of every method on the way: a row per method and number of evaluations."""
    return pd.concat([one.curve.assign(method=one.name) for one in scores.methods], ignore_index=True)


def _page(scores: Scores, table: pd.DataFrame, settings: Mapping[str, Any], unit: str) -> str:
    first = scores.methods[0].name
    summary = (
        f"Hypervolume is the mean accuracy in percent over all costs from {scores.range.smallest:.4g} to "
        f"{scores.range.full:.4g} {unit}. Intervals hold {LEVEL:.0%} of the bootstrapped means over seeds; differences "
        f"and p-values are to {first}, seeds paired. Unseen is the hypervolume of what a method would choose by the "
        "accuracies that it saw, on images that no search saw; at budgets is the mean over the budgets there. "
        + "; ".join(f"{name}: {value}" for name, value in settings.items() if not isinstance(value, dict))
    )
    pictures = [
        _lines(scores, "evaluations", "evaluations"),
        _lines(scores, "seconds", "seconds of evaluations and of the method itself"),
        _budgets(scores, unit),
    ]
    drawn = "".join(
        picture.to_html(full_html=False, include_plotlyjs=number == 0) for number, picture in enumerate(pictures)
    )
    cells = table.round(3).to_html(index=False, border=0, na_rep="–")
    return _PAGE.format(
        title="Comparison of search methods",
        summary=html.escape(summary),
        body=f'<div class="table">{cells}</div>{drawn}',
    )


def _lines(scores: Scores, column: str, title: str) -> go.Figure:
    figure = go.Figure()
    for one, colour in _coloured(scores):
        curve, shown = one.curve, one.curve[column].clip(lower=1e-3)
        band = [*curve["high"], *curve["low"][::-1]]
        if np.isfinite(band).all():
            figure.add_scatter(
                x=[*shown, *shown[::-1]], y=band, fill="toself", fillcolor=colour, opacity=0.15, line_width=0,
                legendgroup=one.name, showlegend=False, hoverinfo="skip",
            )  # fmt: skip
        figure.add_scatter(
            x=shown, y=curve["mean"], name=one.name, legendgroup=one.name, line={"color": colour, "shape": "hv"}
        )
    figure.update_layout(xaxis_title=title, yaxis_title="hypervolume: mean accuracy in %", hovermode="x unified")
    figure.update_xaxes(type="log")
    return figure


def _budgets(scores: Scores, unit: str) -> go.Figure:
    figure = go.Figure()
    for one, colour in _coloured(scores):
        budgets = sorted(one.at_budget)
        means = [one.at_budget[budget][0] for budget in budgets]
        error = {
            "type": "data",
            "array": [mean.high - mean.mean for mean in means],
            "arrayminus": [mean.mean - mean.low for mean in means],
        }
        figure.add_scatter(
            x=budgets,
            y=[mean.mean for mean in means],
            error_y=error,
            name=one.name,
            line_color=colour,
            mode="lines+markers",
        )
    figure.update_layout(xaxis_title=f"budget in {unit}", yaxis_title="accuracy of the chosen subnet in %")
    return figure


def _picture(scores: Scores, unit: str) -> Figure:
    figure = Figure(figsize=(12, 4.5), dpi=110, layout="constrained")
    over, seconds, at = figure.subplots(1, 3)
    for one, colour in _coloured(scores):
        for axes, column in ((over, "evaluations"), (seconds, "seconds")):
            shown = one.curve[column].clip(lower=1e-3)
            axes.step(shown, one.curve["mean"], where="post", color=colour, label=one.name, linewidth=1.3)
            axes.fill_between(shown, one.curve["low"], one.curve["high"], step="post", color=colour, alpha=0.12)
            axes.set_xscale("log")
            axes.set_xlabel(column)
        budgets = sorted(one.at_budget)
        at.plot(budgets, [one.at_budget[b][0].mean for b in budgets], marker="o", markersize=3, color=colour)
    over.set_ylabel("hypervolume: mean accuracy in %")
    at.set_xlabel(f"budget in {unit}")
    at.set_ylabel("accuracy of the chosen subnet in %")
    over.legend(fontsize=7, frameon=False)
    return figure


def _coloured(scores: Scores) -> list[tuple[MethodScore, str]]:
    return [(one, _COLOURS[number % len(_COLOURS)]) for number, one in enumerate(scores.methods)]
