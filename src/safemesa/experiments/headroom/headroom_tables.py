"""Headroom as text: what unadapted critics lack to oracles, all critics, and escapes."""

from collections.abc import Sequence
from typing import Any

from safemesa.experiments.headroom.critic_scores import LOOK_BACK, longest_warning
from safemesa.experiments.report.result_tables import ABSENT, markdown_table
from safemesa.experiments.statistics.across_seeds import bootstrap_interval, paired_difference
from safemesa.pages.tables import Cell, Table

Row = dict[str, Any]

CRITICS = {
    "multitask_prior": "Multi-Task, no adaptation",
    "multitask": "Multi-Task, adapted",
    "mesa_prior": "MESA, no adaptation",
    "mesa": "MESA, adapted",
    "mesa_as_printed_prior": "MESA as printed, no adaptation",
    "mesa_as_printed": "MESA as printed, adapted",
    "rrl": "scratch, on the test log",
    "oracle_scratch": "oracle: scratch, long log",
    "oracle": "oracle: Multi-Task, long log",
    "oracle_task_policy": "oracle: Multi-Task, task policy's episodes",
}
POLICIES = {"data": "the random policy", "task": "the learned task policy"}
ERRORS = {
    "auc": "AUC",
    "brier": "Brier",
    "false_positive_rate": "FPR",
    "false_negative_rate": "FNR",
}
WARNINGS = {
    **{f"caught_{steps}": f"caught at {steps}" for steps in LOOK_BACK},
    "warning_steps_median": "warning",
    "false_alarm_steps": "false alarms",
}
DIFFERENCES = {
    "headroom": ("multitask_prior", "oracle"),
    "headroom, scratch oracle": ("multitask_prior", "oracle_scratch"),
    "headroom, task policy's oracle": ("multitask_prior", "oracle_task_policy"),
    "Multi-Task's adaptation": ("multitask_prior", "multitask"),
    "MESA's adaptation": ("mesa_prior", "mesa"),
    "MESA less Multi-Task, adapted": ("mesa", "multitask"),
    "scratch less Multi-Task, adapted": ("rrl", "multitask"),
}
"""Name of a difference to the critics `a` and `b` of `a - b`, paired by seed."""

ESCAPES = {
    "entries": "entries",
    "escaped": "escaped",
    "violations": "violations",
    "violations_under_recovery": "under recovery",
    "recovery_steps": "recovery's share of steps",
    "steps_to_violation_median": "steps from takeover to violation",
    "rescued_0": "rescued at takeover",
    "rescued_5": "rescued 5 steps before",
}
COUNTS = ("entries", "violations", "steps_to_violation_median", "warning_steps_median")
READING = """\
Only states before an episode's first violation count. Labels are discounted outcomes of the
episodes; FPR and FNR are errors at the risk limit. "Caught at h": share of violating episodes in
which the action h steps before the violation is above the limit. "Warning": median number of
actions in a row, up to the violating one, that are above the limit. "False alarms": share of steps
above the limit in episodes without a violation. "Rescued": share of failed takeovers from which one
of 40 random sequences of actions does not violate within the label's horizon. Numbers are means
over seeds, with 95 % bootstrap intervals (which cover about 75 % with three seeds)."""


def headroom_markdown(critics: Sequence[Row], escaped: Sequence[Row]) -> str:
    """`headroom.md`: headroom of all domains, then all critics, then escapes."""
    parts = ["# Headroom", READING, "## In short", SUMMARY_READING]
    parts += [summary_table(critics, escaped), "## Differences", difference_table(critics)]
    for domain in _domains(critics):
        parts += [f"## {domain}", _limits(critics, domain)]
        for policy, title in POLICIES.items():
            parts += [f"### States of {title}", critic_table(critics, domain, policy)]
    return "\n\n".join([*parts, "## Escapes from recovery", escape_table(escaped)]) + "\n"


def page_tables(critics: Sequence[Row], escaped: Sequence[Row]) -> str:
    """What the command prints: a row per domain, headroom and escapes."""
    tables = summary_table(critics, escaped), difference_table(critics), escape_table(escaped)
    return "\n\n".join(tables) + "\n"


SUMMARY_READING = """\
Means over seeds, on states of the random policy that collects logs. "Misses": share of risky states
below the limit. "Way out": share of MESA's failed takeovers from which other actions stay safe."""
SUMMARY_CRITICS = ("multitask_prior", "multitask", "mesa", "oracle")


def summary_table(critics: Sequence[Row], escaped: Sequence[Row]) -> str:
    """One row per domain: critics with and without adaptation beside the oracle."""
    lines = []
    for domain in _domains(critics):
        known = _chosen(critics, domain=domain, policy="data")
        own = {name: _chosen(known, critic=name) for name in SUMMARY_CRITICS}
        ranks = [_mean(rows, "auc", interval=False) for rows in own.values()]
        misses = [
            _mean(own[name], "false_negative_rate", interval=False)
            for name in ("multitask_prior", "oracle")
        ]
        taken = _chosen(escaped, domain=domain, arm="mesa")
        lines.append((Cell(domain), *ranks, *misses, _mean(taken, "rescued_0", interval=False)))
    titles = ("unadapted", "Multi-Task", "MESA", "oracle")
    header = ("domain", *(f"AUC, {title}" for title in titles))
    header += ("misses, unadapted", "misses, oracle", "way out")
    return markdown_table(Table(header=header, rows=tuple(lines)))


def difference_table(rows: Sequence[Row]) -> str:
    """Paired differences between critics, per domain and policy."""
    lines = []
    for domain in _domains(rows):
        for policy in POLICIES:
            here = _chosen(rows, domain=domain, policy=policy)
            for name, (first, second) in DIFFERENCES.items():
                if policy == "data" and second == "oracle_task_policy":
                    continue
                pairs = [_pairs(here, first, second, metric) for metric in (*ERRORS, "caught_4")]
                count = str(len({row["seed"] for row in here}))
                lines.append(
                    (Cell(domain), Cell(policy), Cell(name), Cell(count), *map(_gap, pairs))
                )
    header = ("domain", "states of", "difference", "n", *ERRORS.values(), "caught at 4")
    return markdown_table(Table(header=header, rows=tuple(lines)))


def critic_table(rows: Sequence[Row], domain: str, policy: str) -> str:
    """All critics of one domain under one policy."""
    lines = []
    known = _chosen(rows, domain=domain, policy=policy)
    for name in dict.fromkeys([*CRITICS, *(str(row["critic"]) for row in known)]):
        here = _chosen(known, critic=name)
        if not here:
            continue
        errors = [_mean(here, metric, interval=True) for metric in ERRORS]
        warnings = [_mean(here, metric, interval=False) for metric in WARNINGS]
        counts = Cell(str(sum(row["violations"] for row in here)))
        title = Cell(CRITICS.get(name, name))
        lines.append((title, Cell(str(len(here))), counts, *errors, *warnings))
    header = ("critic", "n", "violations", *ERRORS.values(), *WARNINGS.values())
    return markdown_table(Table(header=header, rows=tuple(lines)))


def escape_table(rows: Sequence[Row]) -> str:
    """What became of entries into recovery, per domain and arm."""
    lines = []
    for domain in _domains(rows):
        for arm in dict.fromkeys(row["arm"] for row in _chosen(rows, domain=domain)):
            here = _chosen(rows, domain=domain, arm=arm)
            cells = [_mean(here, metric, interval=metric == "escaped") for metric in ESCAPES]
            lines.append((Cell(domain), Cell(arm), Cell(str(len(here))), *cells))
    header = ("domain", "arm", "n", *ESCAPES.values())
    return markdown_table(Table(header=header, rows=tuple(lines)))


def _limits(rows: Sequence[Row], domain: str) -> str:
    row = _chosen(rows, domain=domain)[0]
    gamma, limit = row["gamma_risk"], row["risk_limit"]
    most = longest_warning(gamma, limit)
    return (
        f"gamma_risk {gamma:g}, risk limit {limit:g}: an exact critic of a certain violation warns "
        f"of its last {most} actions and of none before."
    )


def _domains(rows: Sequence[Row]) -> list[str]:
    return sorted({row["domain"] for row in rows})


def _chosen(rows: Sequence[Row], **fields: str) -> list[Row]:
    """The rows with these values, by seed."""
    found = [row for row in rows if all(row[name] == value for name, value in fields.items())]
    return sorted(found, key=lambda row: row["seed"])


def _pairs(rows: Sequence[Row], first: str, second: str, metric: str) -> list[tuple[float, float]]:
    """A metric of two critics, of the seeds in which both have it."""

    def values(critic: str) -> dict[int, float | None]:
        return {row["seed"]: row.get(metric) for row in rows if row["critic"] == critic}

    ours, theirs = values(first), values(second)
    both = ((ours[seed], theirs.get(seed)) for seed in ours)
    return [(one, two) for one, two in both if one is not None and two is not None]


def _gap(pairs: Sequence[tuple[float, float]]) -> Cell:
    if not pairs:
        return Cell(ABSENT)
    found = paired_difference(*(list(side) for side in zip(*pairs, strict=True)))
    return Cell(f"{found.mean:+.3f}", _interval(found.low, found.high, "+.3f"))


def _mean(rows: Sequence[Row], metric: str, *, interval: bool) -> Cell:
    values = [row[metric] for row in rows if row.get(metric) is not None]
    if not values:
        return Cell(ABSENT)
    mean, style = sum(values) / len(values), ".1f" if metric in COUNTS else ".3f"
    low, high = (bootstrap_interval(values) or (None, None)) if interval else (None, None)
    return Cell(format(mean, style), _interval(low, high, style))


def _interval(low: float | None, high: float | None, style: str) -> tuple[str, ...]:
    if low is None or high is None:
        return ()
    return (f"[{low:{style}}, {high:{style}}]",)
