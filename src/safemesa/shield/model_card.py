"""The page that a person reads before a shield is switched on."""

from collections.abc import Mapping
from typing import Any

from safemesa.datasets.task_log import violations_in_words

_SAFETY = """\
## What this is not

This is a *learned* shield: it lowers the number of violations; it proves nothing. Its risk is an
estimate from logs, wrong where the robot differs from them. It is no assured monitor and no assured
recovery in the sense of ASTM F3269 or of a Simplex architecture. Keep an assured layer (limits,
geofence, emergency stop) after it, so that it always wins.
"""


def model_card(manifest: Mapping[str, Any]) -> str:
    """Markdown from a manifest."""
    shield = manifest["shield"]
    risk, enforce = shield["risk"], shield["enforce"]
    parts = [f"# Shield: {manifest['name']}", ""]
    parts += [f"> **WARNING** {text}\n" for text in manifest["warnings"]]
    parts += [
        f"Made by {manifest['software']}. Enforcing is "
        f"{'allowed' if enforce['allowed'] else 'NOT allowed without force'}. The runtime needs "
        "Python 3.10, NumPy 1.21 and safetensors 0.4, or later.",
        "",
        "## Signals",
        "",
        "| observation | unit | mean | std | trained on | hard limits |",
        "|---|---|---|---|---|---|",
        *(
            f"| {_cell(one['name'])} | {_cell(one['unit'])} | {one['mean']:.4g} | "
            f"{one['std']:.4g} | {_limits(one, 'trained_')} | {_limits(one)} |"
            for one in shield["observations"]
        ),
        "",
        "| action | unit | limits | trained on | largest rate | safe action |",
        "|---|---|---|---|---|---|",
        *(
            f"| {_cell(one['name'])} | {_cell(one['unit'])} | {_limits(one)} | "
            f"{_limits(one, 'trained_')} | {_cell(one['rate'])} | {one['safe']:g} |"
            for one in shield["actions"]
        ),
        "",
        "## Decision",
        "",
        f"- One tick is {shield['dt']:g} s.",
        f"- A proposal with risk above {risk['limit']:g} is overridden by the recovery policy.",
        f"- The policy gets control back at risk {risk['release_limit']:g}, after at least "
        f"{risk['minimum_dwell']:g} s.",
        f"- Every fault ends in the safe action ({shield['fallback']}).",
        f"- {_outside(shield['training'])}",
        *_monitor(shield.get("monitor"), manifest["provenance"].get("monitor_threshold"), shield),
        f"- Risk is the discounted probability of a future violation; discount "
        f"{manifest['provenance'].get('gamma_risk', 'unknown')} per tick.",
        "",
        "## Data",
        "",
        *_data(manifest["log"]),
        "",
        "## Time to act",
        "",
        *_time_to_act(manifest["time_to_act"]),
        "",
        "## Ranking and calibration",
        "",
        *_calibration(manifest["calibration"]),
        "",
        _SAFETY,
    ]
    return "\n".join(parts)


def _cell(value: Any) -> str:
    text = "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _limits(signal: Mapping[str, Any], kind: str = "") -> str:
    low, high = signal[f"{kind}low"], signal[f"{kind}high"]
    return "-" if low is None and high is None else f"{_cell(low)} to {_cell(high)}"


def _outside(training: Mapping[str, Any] | None) -> str:
    if training is None:
        return "Nothing notices when the robot leaves the training data: they are not known."
    done = {
        "record": "is recorded, and nothing acts on it",
        "slow": "moves the proposal half of the way to the safe action",
        "recover": "lets the recovery policy act",
        "stop": "ends in the safe action",
    }[training["policy"]]
    return (
        f"An observation unlike the training data ({training['rows']} rows of them) {done}. The "
        "risk means little there."
    )


def _monitor(monitor: Mapping[str, Any] | None, told: Any, shield: Mapping[str, Any]) -> list[str]:
    if monitor is None:
        return []
    text = (
        "- A dynamics monitor alarms where its statistic exceeds "
        f"{monitor['threshold']:.4g} (then: {monitor['dynamics_changed']}; where its networks "
        f"disagree: {monitor['outside_training']})."
    )
    if isinstance(told, Mapping):
        hourly = 3600.0 / shield["dt"]
        rate, low, high = (hourly * told[name] for name in ("rate", "low", "high"))
        text += (
            f" Asked for were {rate:.3g} false alarms in an hour of a healthy robot; the training "
            f"robots leave {low:.2g} to {high:.2g} open. It learns nothing on the robot: a policy "
            "that goes where no log has been may raise it, too."
        )
    return [text]


def _data(log: Mapping[str, Any] | None) -> list[str]:
    if log is None:
        return ["Nothing is known about the log of this robot."]
    rows, events = log["violations"], log.get("violation_events", log["violations"])
    violations = violations_in_words(events, rows)
    return [
        f"The new robot's log: {log['transitions']} transitions, {violations}, "
        f"{log['episodes']} episodes (data set `{_cell(log.get('dataset'))}`, task "
        f"`{_cell(log.get('task'))}`)."
    ]


def _time_to_act(warns: Mapping[str, Any] | None) -> list[str]:
    """How early the shield warns: what decides whether it can help."""
    if warns is None:
        return ["Not measured: nobody knows whether this shield warns in time."]
    announced, hourly, share = (
        warns[name] for name in ("announced", "false_alarms_per_hour", "calm_time_share")
    )
    lines = [
        f"- announced at least {warns['lead_s']:.3g} s before: {announced['count']} of "
        f"{announced['of']} violations [{announced['low']:.3f}, {announced['high']:.3f}]",
        f"- false alarms: {_number(hourly)} per hour of calm time",
        f"- calm time that is flagged: {'unknown' if share is None else f'{share:.1%}'}",
    ]
    if warns["at_exported_limit"]:
        return [f"Measured on held-out logs, at risk limit {warns['limit']:.3g}:", "", *lines]
    return [
        f"Measured on held-out logs, at risk limit {warns['limit']:.3g}. This shield has another, "
        "for which nothing was measured:",
        "",
        *lines,
    ]


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"


def _calibration(calibration: Any) -> list[str]:
    """What `safemesa evaluate` found, else the numbers at the top; the manifest holds all of it."""
    if calibration is None:
        return ["None came with this model. Treat the risk as a score."]
    summary = calibration if isinstance(calibration, Mapping) else {}
    scores = summary.get("scores")
    lines = _scores(scores) if isinstance(scores, Mapping) else []
    if not lines:
        numbers = {name: value for name, value in summary.items() if type(value) in (int, float)}
        lines = [f"- {name}: {value:.4g}" for name, value in numbers.items()]
    return [
        *lines,
        "",
        "These numbers say nothing about time to act. The recovery policy was not scored.",
        "",
        "The whole summary is `calibration` in manifest.json.",
    ]


def _scores(scores: Mapping[str, Any]) -> list[str]:
    """Scores of `safemesa evaluate` with their intervals; those that are missing are left out."""
    names = {"auroc": "AUROC", "brier": "Brier score", "calibration_error": "calibration error"}
    lines = []
    for key, name in names.items():
        score = scores.get(key)
        found = score if isinstance(score, Mapping) else {}
        numbers = [found.get(part) for part in ("value", "low", "high")]
        if all(type(number) in (int, float) for number in numbers):
            value, low, high = numbers
            lines.append(f"- {name}: {value:.3f} [{low:.3f}, {high:.3f}]")
    return lines
