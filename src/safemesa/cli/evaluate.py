"""`safemesa evaluate PRIOR LOG`: how right is the risk on logs that it was not fitted to?"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from safemesa.cli.arguments import Positional, command_line, parse, prepare_jax
from safemesa.core.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class EvaluateFlags:
    """Scores a prior on held-out episodes of the new robot, or on training tasks left out."""

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
    target_miss_rate: float | None = None
    """Choose the risk limit that misses at most this share of violations."""
    seed: int | None = None
    """Order of batches and folds; default: the prior's seed."""
    out: Path | None = None
    """JSON file for everything that is printed, and the trade-off curve."""


def main(verb: str, arguments: Sequence[str]) -> None:
    """Prints and writes the evaluation."""
    flags = parse(EvaluateFlags, verb, arguments)
    few = flags.adapt_transitions is not None and flags.adapt_transitions < 1
    if flags.folds < 2 or flags.tasks < 1 or few:
        raise ConfigurationError(
            f"--folds is {flags.folds}, --tasks {flags.tasks}, --adapt-transitions "
            f"{flags.adapt_transitions}; expected at least 2, 1 and 1."
        )
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
    from safemesa.experiments.log_evaluation import evaluate_held_out, evaluate_left_out
    from safemesa.phases.same_signals import check_same_signals, units_of
    from safemesa.phases.storage.artefacts import load_prior, read_manifest

    prior, config, spaces = load_prior(flags.prior)
    notes = read_manifest(flags.prior, "prior")[2]
    data = OfflineTasks.load(flags.log)
    data.check_spaces(spaces)
    if not flags.leave_one_task_out:
        check_same_signals(data, prior.model.normaliser, units_of(notes))
    config = config if flags.seed is None else replace(config, seed=flags.seed)
    policies = {
        "policy_of_outcomes": "the one that drove the logs",
        "policy_of_risk": config.data.next_action,
    }
    if not flags.leave_one_task_out:
        seen = data.only_log().name in notes.get("tasks", ())
        report = evaluate_held_out(config, prior, data, flags.folds, flags.target_miss_rate)
        return {**policies, "seen_by_prior": seen, **report}
    names = [log.name for log in data.train][: flags.tasks]
    if len(data.train) < 3:
        raise ConfigurationError(
            f"{flags.log} has {len(data.train)} training tasks; leaving one out needs at least 3."
        )
    default = config.data.test_transitions if data.test is None else data.test.transitions
    transitions = flags.adapt_transitions or default
    target = flags.target_miss_rate
    report = evaluate_left_out(config, data, names, transitions, target, _tell)
    return {**policies, "seen_by_prior": False, **report}


def _tell(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def print_report(report: dict[str, Any]) -> None:
    """The evaluation in words."""
    found, null = report["scores"], report["null"]
    where = f" of {report['task']!r}" if "task" in report else f", {len(report['tasks'])} tasks"
    lines = [
        f"{report['kind'].capitalize()}{where}: {found['steps']} steps before the first violation, "
        f"{found['violations']} violations in {found['episodes']} episodes; adapted to "
        f"{report['fitted_transitions']} transitions each time."
    ]
    lines += [
        f"  {one['task']}: AUROC {_number(one['auroc'])}, Brier {_number(one['brier'])}, "
        f"missed {_share(one['miss_rate'])}"
        for one in report.get("tasks", ())
    ]
    rows = {
        f"AUROC (violation in the next {found['auroc_window_steps']} steps)": _number(
            found["auroc"]
        ),
        "Brier score": f"{_number(found['brier'])}; the mean alone {found['base_rate_brier']:.3f}",
        "calibration error": _number(found["calibration_error"]),
        f"violations missed at limit {found['risk_limit']:.3g}": _share(found["miss_rate"]),
        "safe episodes with an alarm": _share(found["false_alarm_episodes"]),
    }
    if null["auroc"] is not None:
        verdict = "sound" if null["sound"] else "NOT SOUND: labels leak; do not trust these scores"
        value = f"{null['auroc']:.3f}, standard error {null['standard_error']:.3f}"
        rows["AUROC with shuffled costs"] = f"{value}: {verdict}"
    lines += [f"{name:<36}{text}" for name, text in rows.items()]
    print("\n".join([*_warnings(report), *lines, *_target_lines(report), *_caveats(report)]))


def _warnings(report: dict[str, Any]) -> list[str]:
    """What makes the rest worthless, above it."""
    found, lines = report["scores"], []
    auroc = found["auroc"]
    if auroc["value"] is not None and auroc["low"] <= 0.5:
        lines.append(
            "WARNING: the risk does not tell danger from safety: its AUROC may be as low as "
            f"{auroc['low']:.3f}, and chance has 0.5. A shield of it would not help. More "
            "violations in the logs, or `meta-train` with more --meta.iterations or "
            "--risk.violation-fraction 0.3, may mend it."
        )
    target = report.get("target") or {}
    limit = target.get("limit")
    missed = found["miss_rate"] if limit is None else target["test"]["miss_rate"]
    used = found["risk_limit"] if limit is None else limit
    if missed["value"] is not None and missed["low"] > 0.5:
        lines.append(
            f"WARNING: at a limit of {used:.3g} most violations pass the guard "
            f"({missed['count']} of {missed['of']})."
        )
    if report["seen_by_prior"]:
        lines.append(
            "WARNING: the prior learned from a task of this name; all scores are too good."
        )
    return lines


def _target_lines(report: dict[str, Any]) -> list[str]:
    target = report.get("target")
    if target is None:
        return []
    lines = [f"{'limit':<8}{'missed':<36}safe episodes with an alarm"]
    for one in report["trade_off"]:
        missed, alarms = _share(one["miss_rate"]), _share(one["false_alarm_episodes"])
        lines.append(f"{one['limit']:<8}{missed:<36}{alarms}")
    count, wanted = target["calibration_violations"], target["miss_rate"]
    if target["limit"] is None:
        lines.append(
            f"No limit can promise to miss at most {wanted:.1%}: that needs "
            f"{target['needed_violations']} violations for calibration, there are {count}."
        )
        return lines
    missed = _share(target["test"]["miss_rate"])
    alarms = _share(target["test"]["false_alarm_episodes"])
    return [
        *lines,
        f"Risk limit for at most {wanted:.1%} missed: {target['limit']:.4g}, chosen on {count} "
        "violations; on the other half of the data:",
        f"  missed {missed}, safe episodes with an alarm {alarms}",
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
