"""The skill of recoveries as text and as plain values."""

from collections.abc import Sequence
from typing import Any

from safemesa.experiments.recovery_skill.measure_skill import Skill, SkillReport
from safemesa.experiments.recovery_skill.skill_starts import BEFORE, CALM, SkillSettings
from safemesa.experiments.recovery_skill.takeover_truth import (
    FALSE_ALARMS,
    SIGNALS,
    Truth,
    signal_scores,
)
from safemesa.experiments.report.result_tables import ABSENT

MODELS = {"prior": "after Phase 1", "adapted": "after Phase 2", "deployed": "after Phase 3"}

SHOWN = FALSE_ALARMS[1:4]
"""Of the shares of false alarms, those in the table of signals."""


def skill_markdown(reports: Sequence[SkillReport], settings: SkillSettings) -> str:
    """Both tables, with how they are read."""
    parts = [
        "Share of starts that end in a violation while one driver has all the say, on the test "
        f"robot, for {settings.horizon} steps; 95 % intervals (Clopper and Pearson), number of "
        "starts.",
        _skill_table(reports, settings),
    ]
    sources: dict[str, list[str]] = {}
    for one in reports:
        sources.setdefault(one.starts.source, []).append(one.subject.name)
    parts += [f"Starts of {', '.join(names)}: from {text}." for text, names in sources.items()]
    if not any(one.truths for one in reports):
        return "\n\n".join(parts)
    parts += [
        "States that Phase 3 met, in which the proposal is executed and recovery drives from then "
        f"on. A state fails if that violates within {settings.horizon} steps. Missed: failing "
        "states within the limit. False alarms: states that recovery saves, above it. V(s') needs "
        "the simulated next state, and no robot knows it.",
        _signal_table(reports),
    ]
    parts += [
        f"States of {one.subject.name}: "
        + "; ".join(f"{drawn} of {steps} {name}" for name, (steps, drawn) in one.met.parts.items())
        + "."
        for one in reports
        if one.met is not None
    ]
    return "\n\n".join(parts)


def _skill_table(reports: Sequence[SkillReport], settings: SkillSettings) -> str:
    header = (
        "run", "drives", "from calm states", f"{settings.before} steps before a violation"
    )  # fmt: skip
    rows = []
    for report in reports:
        drivers = dict.fromkeys((skill.driver, skill.model) for skill in report.skills)
        for driver, model in drivers:
            cells = {
                skill.states: _share(skill)
                for skill in report.skills
                if (skill.driver, skill.model) == (driver, model)
            }
            title = driver if model is None else f"{driver}, {MODELS[model]}"
            found = (cells.get(kind, ABSENT) for kind in (CALM, BEFORE))
            rows.append((report.subject.name, title, *found))
    return _table(header, rows)


def _share(skill: Skill) -> str:
    low, high = skill.interval
    return f"{skill.share:.2f} [{low:.2f}, {high:.2f}] ({skill.n})"


def _signal_table(reports: Sequence[SkillReport]) -> str:
    header = (
        "run", "model", "signal", "failing", "AUC", "own limit", "missed, false alarms",
        *(f"missed at {share:g} false alarms" for share in SHOWN),
    )  # fmt: skip
    rows = [
        (report.subject.name, MODELS[truth.model], *row)
        for report in reports
        if report.met is not None
        for truth in report.truths
        for row in _signal_rows(truth, report)
    ]
    return _table(header, rows)


def _signal_rows(truth: Truth, report: SkillReport) -> list[tuple[str, ...]]:
    assert report.met is not None
    rows = []
    for scores in signal_scores(truth, report.met.weight):
        limits = {one["chosen_by"]: one for one in scores["limits"]}
        own = limits.get("own")
        errors = ABSENT
        if own is not None:
            errors = f"{_number(own['misses'])}, {_number(own['false_alarms'])}"
        missed = (limits.get(f"false alarms {share:g}", {}).get("misses") for share in SHOWN)
        rows.append(
            (
                SIGNALS[scores["signal"]],
                f"{int(truth.fails.sum())} of {len(truth.fails)}",
                _number(scores["auc"], 3),
                ABSENT if own is None else f"{own['limit']:.3g}",
                errors,
                *map(_number, missed),
            )
        )
    return rows


def _number(value: float | None, digits: int = 2) -> str:
    return ABSENT if value is None else f"{value:.{digits}f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def skill_json(report: SkillReport) -> dict[str, Any]:
    """Everything that was found of one subject, as plain values."""
    subject = report.subject
    return {
        "run": subject.name,
        "path": str(subject.path),
        "arm": subject.config.arm,
        "domain": subject.config.domain,
        "preset": subject.config.preset,
        "seed": subject.seed,
        "starts": {
            "source": report.starts.source,
            CALM: len(report.starts.calm),
            BEFORE: len(report.starts.before),
        },
        "skill": [_skill_values(skill) for skill in report.skills],
        "takeover": None if report.met is None else _takeover_values(report),
    }


def _skill_values(skill: Skill) -> dict[str, Any]:
    low, high = skill.interval
    return {
        "driver": skill.driver,
        "model": skill.model,
        "states": skill.states,
        "n": skill.n,
        "violated": skill.violated,
        "share": skill.share,
        "low": low,
        "high": high,
        "steps_to_violation_median": skill.steps_median,
    }


def _takeover_values(report: SkillReport) -> dict[str, Any]:
    assert report.met is not None
    weight = report.met.weight
    return {
        "drawn_from": {
            name: {"steps": steps, "drawn": drawn}
            for name, (steps, drawn) in report.met.parts.items()
        },
        "models": [
            {
                "model": truth.model,
                "states": len(truth.fails),
                "failing": int(truth.fails.sum()),
                "limit": truth.limit,
                "signals": signal_scores(truth, weight),
            }
            for truth in report.truths
        ],
    }
