"""How early a shield warns, as `safemesa evaluate` measured it, at the limit that is exported."""

import math
from collections.abc import Mapping
from typing import Any

SAME_LIMIT = 0.01
"""Relative difference up to which a limit is the one that was measured: people round."""
MEASURED = ("announced", "false_alarms_per_hour", "calm_time_share", "too_late", "useless")
"""What a shield carries of a row of the evaluation's table of limits."""


def measured_time_to_act(
    calibration: Any, *, limit: float, found: float | None
) -> dict[str, Any] | None:
    """The row of the limit, or of the nearest one that was measured, and a sentence about it.

    Args:
        calibration: what `safemesa evaluate --out` wrote, of any version.
        limit: risk above which the shield takes over.
        found: the limit that was found for this model; None if its limit was given.

    Returns:
        None where the calibration does not say how early the risk warns.
    """
    told = _part(calibration, "time_to_act")
    lead, unit = told.get("lead_s"), _unit(_part(told, "limit"), found)
    listed = told.get("limits")
    rows = [_part(_part(told, "target"), "test"), *(listed if isinstance(listed, list) else [])]
    measured = [row for row in rows if _is_measured(row)]
    if not measured or unit is None or not _is_number(lead):
        return None

    def distance(row: Mapping[str, Any]) -> float:
        return abs(row["limit"] * unit - limit)

    # The limit chosen for a target is asked first: it was tried on data that did not choose it.
    same = next((row for row in measured if distance(row) <= SAME_LIMIT * limit), None)
    row = same or min(measured, key=distance)
    numbers = {
        "limit": float(row["limit"] * unit),
        "at_exported_limit": same is not None,
        "lead_s": lead,
        "short_sighted": bool(told.get("short_sighted")),
        **{name: row[name] for name in MEASURED},
    }
    return {**numbers, "summary": _summary(numbers)}


def _unit(limit: Mapping[str, Any], found: float | None) -> float | None:
    """What the limits of the table are multiples of: 1, or the limit that was found."""
    if not limit.get("found"):
        return 1.0
    if found is not None:
        return found
    value: Any = limit.get("value")
    return float(value) if _is_number(value) else None


def _is_measured(row: Any) -> bool:
    """Whether a row of the table has all that is read from it."""
    if not isinstance(row, Mapping) or not {"limit", *MEASURED} <= set(row):
        return False
    announced = _part(row, "announced")
    numbers = [row["limit"], *(announced.get(name) for name in ("count", "of", "low", "high"))]
    perhaps = [row[name] for name in ("false_alarms_per_hour", "calm_time_share")]
    if not all(value is None or _is_number(value) for value in perhaps):
        return False
    flags_much = row["useless"] and row["calm_time_share"] is None
    return all(map(_is_number, numbers)) and not flags_much


def _summary(numbers: Mapping[str, Any]) -> str:
    """One sentence, without its full stop."""
    announced, lead = numbers["announced"], f"at least {numbers['lead_s']:.3g} s before"
    hourly, share = numbers["false_alarms_per_hour"], numbers["calm_time_share"]
    text = "" if numbers["at_exported_limit"] else f"at a limit of {numbers['limit']:.3g}, "
    if announced["of"]:
        text += (
            f"{announced['count']} of {announced['of']} violations were announced {lead} "
            f"[{announced['low']:.3f}, {announced['high']:.3f}]"
        )
    else:
        text += f"no violation could be announced {lead}"
    if hourly is None or share is None:
        return f"{text}; false alarms are not known"
    return f"{text}; {hourly:.3g} false alarms per hour of calm time, {share:.1%} of it flagged"


def _part(record: Any, name: str) -> Mapping[str, Any]:
    """A part of a record that another program wrote; empty where it is not there."""
    part = record.get(name) if isinstance(record, Mapping) else None
    return part if isinstance(part, Mapping) else {}


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
