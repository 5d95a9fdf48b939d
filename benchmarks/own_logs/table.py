"""The table of the records: what happened in each arm, and how many shields do what is asked."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Record = Mapping[str, Any]


class Bounds(NamedTuple):
    """What is asked of a shield, as shares of the episodes."""

    most_violations: float
    least_successes: float


STATED = {"cart": Bounds(0.05, 0.90)}
"""Robots whose bounds were set beforehand."""


def bounds_of(robot: str, none: Record, rule: Record) -> Bounds:
    """A tenth of the violations without a shield, nine tenths of the hand rule's successes."""
    if robot in STATED:
        return STATED[robot]
    most = none["violations"] / none["episodes"] / 10
    return Bounds(most, 0.9 * rule["successes"] / rule["episodes"])


def meets(record: Record, bounds: Bounds) -> bool:
    """Whether a shield is as safe and as useful as is asked."""
    # The small sums forgive the rounding of tenths.
    safe = record["violations"] <= bounds.most_violations * record["episodes"] + 1e-9
    useful = record["successes"] >= bounds.least_successes * record["episodes"] - 1e-9
    return safe and useful


def table_of(records: Sequence[Record]) -> str:
    """Markdown: for each robot the arms without a shield, and the shields of each choice."""
    heads = ["robot", "arm", "horizon", "preset", "combinations", "violations", "successes"]
    heads += ["overridden", "enough", "each (logs; seeds)"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for robot in dict.fromkeys(record["robot"] for record in records):
        own = [record for record in records if record["robot"] == robot]
        only = {record["arm"]: record for record in own if record["arm"] != "shield"}
        shields = [record for record in own if record["arm"] == "shield"]
        bounds = None
        if "none" in only and "hand rule" in only:
            bounds = bounds_of(robot, only["none"], only["hand rule"])
        groups = [("none", [only["none"]])] if "none" in only else []
        # Presets are text or nothing, which have no order.
        for choice in dict.fromkeys((one["horizon"], one["preset"]) for one in shields):
            rows = [one for one in shields if (one["horizon"], one["preset"]) == choice]
            groups.append(("shield", rows))
        groups += [("hand rule", [only["hand rule"]])] if "hand rule" in only else []
        for arm, rows in groups:
            cells = [robot, arm, *_cells(rows, bounds if arm == "shield" else None)]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cells(rows: Sequence[Record], bounds: Bounds | None) -> list[str]:
    horizon, preset = rows[0]["horizon"], rows[0]["preset"]
    enough = "-"
    if bounds is not None:
        enough = f"{sum(meets(row, bounds) for row in rows)} of {len(rows)}"
    return [
        horizon or "-",
        preset or ("-" if horizon is None else "default"),
        str(len(rows)),
        _mean_and_range([row["violations"] for row in rows]),
        _mean_and_range([row["successes"] for row in rows]),
        f"{100 * np.mean([row['overridden_share'] for row in rows]):.0f} %",
        enough,
        _each(rows),
    ]


def _mean_and_range(values: Sequence[int]) -> str:
    if len(values) == 1:
        return str(values[0])
    return f"{np.mean(values):.1f} ({min(values)} to {max(values)})"


def _each(rows: Sequence[Record]) -> str:
    """Violations / successes: logs with commas, seeds with semicolons between them."""
    seeds = dict.fromkeys(sorted((row["meta_seed"] for row in rows), key=lambda seed: seed or 0))
    parts = []
    for seed in seeds:
        own = [row for row in rows if row["meta_seed"] == seed]
        own.sort(key=lambda row: row["log_seed"] or 0)
        parts.append(", ".join(f"{row['violations']}/{row['successes']}" for row in own))
    return "; ".join(parts)


def summary_of(records: Sequence[Record]) -> str:
    """How many combinations of all robots do what is asked, for each choice."""
    lines = []
    shields = [record for record in records if record["arm"] == "shield"]
    for horizon, preset in dict.fromkeys((one["horizon"], one["preset"]) for one in shields):
        verdicts = []
        for one in shields:
            if (one["horizon"], one["preset"]) != (horizon, preset):
                continue
            only = {
                record["arm"]: record
                for record in records
                if record["robot"] == one["robot"] and record["arm"] != "shield"
            }
            if {"none", "hand rule"} <= set(only):
                bounds = bounds_of(one["robot"], only["none"], only["hand rule"])
                verdicts.append(meets(one, bounds))
        lines.append(
            f"Horizon {horizon}, preset {preset or 'default'}: {sum(verdicts)} of {len(verdicts)} "
            "combinations have at most a tenth of the violations without a shield and at least "
            "nine tenths of the hand rule's successes (cart: at most 5 and at least 90 of 100)."
        )
    return "\n".join(lines)
