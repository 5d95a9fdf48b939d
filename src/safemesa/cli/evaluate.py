"""`safemesa evaluate PRIOR LOG`: does the risk warn in time, on logs that it was not fitted to?"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from safemesa.cli.arguments import Positional, command_line, parse, prepare_jax
from safemesa.core.errors import ConfigurationError
from safemesa.core.outputs import check_output


@dataclass(frozen=True, kw_only=True)
class EvaluateFlags:
    """Asks how early a prior warns, on held-out episodes of the new robot or training tasks."""

    prior: Annotated[Positional[Path], tyro.conf.arg(metavar="PRIOR")]
    """Folder that `safemesa meta-train` wrote."""
    log: Annotated[Positional[Path], tyro.conf.arg(metavar="LOG")]
    """Dataset folder; its test log (or only log) is the new robot's."""
    leave_one_task_out: bool = False
    """Learn one prior per training task, without that task, and ask it about the task."""
    tasks: int = 4
    """With --leave-one-task-out: how many tasks are left out, one after the other."""
    adapt_transitions: int | None = None
    """With --leave-one-task-out: transitions to adapt to; default: as many as the test log has."""
    folds: int = 5
    """Parts of the new robot's log."""
    lead: float | None = None
    """Seconds before a violation by which an alarm must have come, so that something can still be
    done; default: half the effective horizon, dt / (1 - gamma_risk)."""
    target_miss_rate: float | None = None
    """Choose the largest risk limit at which at most this share of violations comes without an
    alarm at the lead."""
    seed: int | None = None
    """Order of batches and folds; default: the prior's seed."""
    out: Path | None = None
    """JSON file for everything that is printed."""


def main(verb: str, arguments: Sequence[str]) -> None:
    """Prints and writes the evaluation."""
    flags = parse(EvaluateFlags, verb, arguments)
    few = flags.adapt_transitions is not None and flags.adapt_transitions < 1
    if flags.folds < 2 or flags.tasks < 1 or few:
        raise ConfigurationError(
            f"--folds is {flags.folds}, --tasks {flags.tasks}, --adapt-transitions "
            f"{flags.adapt_transitions}; expected at least 2, 1 and 1."
        )
    if flags.target_miss_rate is not None and not 0.0 < flags.target_miss_rate < 1.0:
        raise ConfigurationError(
            f"--target-miss-rate is {flags.target_miss_rate}; expected a number between 0 and 1."
        )
    if flags.lead is not None and flags.lead < 0.0:
        raise ConfigurationError(f"--lead is {flags.lead}; expected seconds, 0 or more.")
    check_output(flags.out)
    prepare_jax()
    from safemesa.core.files import write_json

    report = _evaluate(flags)
    print_report(report)
    if flags.out is not None:
        write_json(flags.out, {"command": command_line(verb, arguments), **report})
        print(f"Evaluation: {flags.out}")


def _evaluate(flags: EvaluateFlags) -> dict[str, Any]:
    from dataclasses import replace

    from safemesa.datasets.offline_tasks import OfflineTasks
    from safemesa.experiments.measures.log_evaluation import (
        Question,
        evaluate_held_out,
        evaluate_left_out,
    )
    from safemesa.phases.same_signals import check_same_signals, units_of
    from safemesa.phases.storage.artefacts import load_prior, read_manifest

    prior, config, spaces = load_prior(flags.prior)
    notes = read_manifest(flags.prior, "prior")[2]
    data = OfflineTasks.load(flags.log)
    data.check_spaces(spaces)
    if not flags.leave_one_task_out:
        check_same_signals(data, prior.model.normaliser, units_of(notes))
    config = config if flags.seed is None else replace(config, seed=flags.seed)
    question = Question(lead=flags.lead, target=flags.target_miss_rate)
    known = {
        "policy_of_outcomes": "the one that drove the logs",
        "policy_of_risk": config.sampling.next_action,
        "dt_declared": data.provenance.get("dt_declared") is not False,
    }
    if not flags.leave_one_task_out:
        seen = data.only_log().name in notes.get("tasks", ())
        report = evaluate_held_out(config, prior, data, flags.folds, question)
        return {**known, "seen_by_prior": seen, **report}
    names = [log.name for log in data.train][: flags.tasks]
    if len(data.train) < 3:
        raise ConfigurationError(
            f"{flags.log} has {len(data.train)} training tasks; leaving one out needs at least 3."
        )
    default = config.data.test_transitions if data.test is None else data.test.transitions
    transitions = flags.adapt_transitions or default
    report = evaluate_left_out(config, data, names, transitions, question, _tell)
    return {**known, "seen_by_prior": False, **report}


def _tell(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def print_report(report: dict[str, Any]) -> None:
    """The evaluation in words: warnings, time to act, then how well the risk ranks."""
    sections = (_warnings, _data, _time_to_act, _target_lines, _ranking, _caveats)
    print("\n".join(line for section in sections for line in section(report)))


def _data(report: dict[str, Any]) -> list[str]:
    """What was asked about."""
    found = report["scores"]
    where = f" of {report['task']!r}" if "task" in report else f", {len(report['tasks'])} tasks"
    return [
        f"{report['kind'].capitalize()}{where}: {found['steps']} steps before the first violation, "
        f"{found['violations']} violations in {found['episodes']} episodes; adapted to "
        f"{report['fitted_transitions']} transitions each time."
    ]


def _warnings(report: dict[str, Any]) -> list[str]:
    """What makes the rest worthless, above it."""
    auroc, lines = report["scores"]["auroc"], _timing_warnings(report["time_to_act"])
    if report["null"]["sound"] is False:
        lines.append("WARNING: labels leak (see the null test); do not trust these numbers.")
    if auroc["value"] is not None and auroc["low"] <= 0.5:
        lines.append(
            "WARNING: the risk does not tell danger from safety: its AUROC may be as low as "
            f"{auroc['low']:.3f}, and chance has 0.5. A shield of it would not help. More "
            "violations in the logs, or `meta-train` with more --meta.iterations, may mend it."
        )
    if report["seen_by_prior"]:
        lines.append(
            "WARNING: the prior learned from a task of this name; all numbers are too good."
        )
    return lines


def _timing_warnings(warns: dict[str, Any]) -> list[str]:
    """Where a shield would come too late, or act all the time, or cannot see far enough."""
    lines, lead, row = [], f"{warns['lead_s']:.3g} s", _used(warns)
    announced, flagged = row["announced"], row["calm_time_share"]
    place = f"limit {_limit(warns, row['limit'])}{' the found one' * warns['limit']['found']}"
    horizon = f"{warns['horizon_s']:.3g} s ahead ({warns['horizon_steps']:.3g} steps)"
    longer = "Learn the prior with a longer horizon (`meta-train --risk.horizon SECONDS`)"
    if row["too_late"]:
        lines.append(
            f"WARNING: a shield at this limit comes too late: {announced['count']} of "
            f"{announced['of']} violations were announced at least {lead} before ({place})."
        )
    if warns["violations"] == warns["unreachable"]:
        lines.append(
            f"WARNING: no violation of this log could be announced {lead} before, so nothing says "
            "whether a shield comes in time. Log more violations and longer before them, or give "
            "a shorter --lead if less time is enough to act."
        )
    if "lead" in warns["short_sighted"]:
        lines.append(
            f"WARNING: the risk looks {horizon}, which is less than the lead of {lead}: it cannot "
            f"be relied on to rise in time. {longer}."
        )
    if "motion" in warns["short_sighted"]:
        lines.append(
            f"WARNING: no --lead was given, so it is half of what this risk looks ahead, {lead}; "
            f"but this fleet's motion lasts about {warns['motion_s']:.3g} s. A risk that looks too "
            "short ahead passes such a test and still comes too late. Give the seconds that the "
            "robot needs to get out of trouble."
        )
    if "steps" in warns["short_sighted"]:
        lines.append(
            f"WARNING: the risk looks {horizon}: in so few steps hardly anything can be done. "
            f"{longer}, or log faster."
        )
    if row["useless"]:
        lines.append(
            f"WARNING: a shield at this limit is useless: {flagged:.0%} of calm time is flagged, "
            f"and nearly everything would be overridden ({place})."
        )
    return lines


def _used(warns: dict[str, Any]) -> dict[str, Any]:
    """The row of the limit that a user takes from here: the one chosen for a target, if any."""
    target = warns.get("target")
    return warns["at_limit"] if target is None or target["test"] is None else target["test"]


def _time_to_act(report: dict[str, Any]) -> list[str]:
    """How early the risk warns, at a table of limits."""
    warns = report["time_to_act"]
    lead, window = (
        f"{warns[f'{name}_s']:.3g} s ({warns[f'{name}_steps']} steps)"
        for name in ("lead", "window")
    )
    lines = [
        f"Time to act: a violation is announced if the risk of a logged action was above the limit "
        f"{lead} to {window} before it. An alarm longer before any violation is false."
    ]
    if not warns["lead_given"]:
        lines.append(
            "The lead is half of what the risk looks ahead; give as --lead the seconds that the "
            "robot needs to get out of trouble."
        )
    if warns["unreachable"]:
        lines.append(
            f"{warns['unreachable']} of {warns['violations']} violations come sooner after their "
            "recording begins. They cannot be announced and are not counted."
        )
    lines.append(_limit_line(warns["limit"]))
    lines += _table(warns, warns["limits"])
    for one in report.get("tasks", ()):
        lines.append(f"  {one['task']}: announced {_share(one['at_limit']['announced'])}")
    return lines


def _limit_line(limit: dict[str, Any]) -> str:
    """Which limit is used, and where it comes from."""
    if not limit["found"]:
        return f"The limit is that of the settings: {limit['value']:.3g}."
    models = limit["of_models"]
    spread = f"{min(models):.3g} to {max(models):.3g} in {len(models)} models"
    whole = (
        "" if limit["value"] is None else f"; `adapt` to the whole log finds {limit['value']:.3g}"
    )
    return (
        f"The limit is found from calm states, for each adapted model anew: {spread}{whole}. "
        "Limits below are multiples of the found one."
    )


def _table(warns: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    """A line per limit; the one that is used is marked."""
    used = warns["at_limit"]["limit"]
    mark = " found" if warns["limit"]["found"] else " used"
    lines = [f"{'limit':<13}{'announced':<32}{'false alarms':<15}{'calm time':<12}safe episodes"]
    for row in rows:
        name = _limit(warns, row["limit"]) + (mark if row["limit"] == used else "")
        lines.append(f"{name:<13}{_row(row)}")
    return lines


def _row(row: dict[str, Any]) -> str:
    hourly, flagged = row["false_alarms_per_hour"], row["calm_time_share"]
    alarms = "unknown" if hourly is None else f"{hourly:.3g} per hour"
    share = "unknown" if flagged is None else f"{flagged:.1%}"
    safe = _share(row["safe_episodes_with_alarm"])
    return f"{_share(row['announced']):<32}{alarms:<15}{share:<12}{safe}"


def _limit(warns: dict[str, Any], limit: float) -> str:
    """A limit of the table: a risk, or how many times the found one."""
    return f"{limit:.3g} x" if warns["limit"]["found"] else f"{limit:.3g}"


def _target_lines(report: dict[str, Any]) -> list[str]:
    """The limit that was chosen for a miss rate, and how it does on the other half of the data."""
    warns = report["time_to_act"]
    target, limit = warns.get("target"), warns["limit"]
    if target is None:
        return []
    count, needed = target["calibration_violations"], target["needed_violations"]
    if target["limit"] is None:
        value = "" if limit["value"] is None else f", {limit['value']:.3g}"
        kept = "found from calm states" if limit["found"] else "of the settings"
        return [
            f"No limit can promise that at most {target['miss_rate']:.1%} come unannounced: that "
            f"needs {needed} violations to choose it by, which are half of those that can be "
            f"announced; there are {count}. The limit stays the one {kept}{value}."
        ]
    chosen = f"{_limit(warns, target['limit'])} the found one"
    if target["risk_limit"] is not None:
        multiple = f" ({chosen})" if limit["found"] else ""
        chosen = f"{target['risk_limit']:.4g}{multiple}"
    lines = [
        f"Risk limit for at most {target['miss_rate']:.1%} unannounced: {chosen}, chosen on "
        f"{count} violations. On the other half of the data:",
        f"{'':<13}{_row(target['test'])}",
    ]
    if target["risk_limit"] is not None and not target["test"]["useless"]:
        lines.append(
            f"To use it: `safemesa adapt --guard-settings.risk-limit {target['risk_limit']:.4g}`."
        )
    return lines


def _ranking(report: dict[str, Any]) -> list[str]:
    """The secondary numbers."""
    found, null = report["scores"], report["null"]
    rows = {
        f"AUROC (violation in the next {found['auroc_window_steps']} steps)": _number(
            found["auroc"]
        ),
        "Brier score": f"{_number(found['brier'])}; the mean alone {found['base_rate_brier']:.3f}",
        "calibration error": _number(found["calibration_error"]),
    }
    if null["auroc"] is not None:
        verdict = "sound" if null["sound"] else "NOT SOUND: labels leak; do not trust these scores"
        value = f"{null['auroc']:.3f}, standard error {null['standard_error']:.3f}"
        rows["AUROC with shuffled costs"] = f"{value}: {verdict}"
    return [
        "Ranking and calibration; they say nothing about time to act:",
        *(f"  {name:<40}{text}" for name, text in rows.items()),
        *(
            f"  {one['task']}: AUROC {_number(one['auroc'])}, Brier {_number(one['brier'])}"
            for one in report.get("tasks", ())
        ),
    ]


def _caveats(report: dict[str, Any]) -> list[str]:
    lines = [
        "Outcomes are those of the policy that drove the logs. The recovery policy was not scored: "
        "whether it escapes only the robot shows (docs/safety.md)."
    ]
    if report["policy_of_risk"] != "logged":
        lines.append(
            f"NOTE: the critic learned the risk of a {report['policy_of_risk']} policy; for that "
            "of the logged one use `meta-train --data.next-action logged`."
        )
    if not report["dt_declared"]:
        lines.append(
            "NOTE: the logs do not say how long a step takes, so 1 s was taken: seconds and hours "
            "are wrong unless it is. Import them with dt."
        )
    unknown = report["scores"]["unknown_outcome"]
    if unknown > 0.01:
        lines.append(
            "NOTE: some recordings stop before the outcome is certain; the mean outcome could be "
            f"larger by up to {unknown:.3f}."
        )
    return lines


def _number(score: dict[str, Any]) -> str:
    if score["value"] is None:
        return "unknown, needs both outcomes"
    return f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"


def _share(score: dict[str, Any]) -> str:
    if score["value"] is None:
        return "there are none"
    interval = f"[{score['low']:.3f}, {score['high']:.3f}]"
    return f"{score['count']}/{score['of']} = {score['value']:.3f} {interval}"
