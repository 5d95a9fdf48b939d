"""From a risk model to a folder that runs on a robot (docs/shield.md)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from safemesa._version import __version__
from safemesa.core.errors import CheckpointError, ConfigurationError
from safemesa.core.files import atomic_folder, read_json, sha256, write_atomic, write_json
from safemesa.core.spaces import Spaces
from safemesa.core.streams import Stream, generator
from safemesa.core.tensors import save_tensors
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.task_log import FEW_VIOLATIONS
from safemesa.learners.monitor.tracker import Tracker, look
from safemesa.learners.recovery import RecoveryNetwork
from safemesa.phases.config import RunConfig
from safemesa.phases.monitoring import tracker_template
from safemesa.phases.rehearsal import rehearsal_layout
from safemesa.phases.same_signals import units_of
from safemesa.phases.storage.artefacts import (
    MONITOR,
    RiskModel,
    load_monitor,
    load_risk_model,
    read_manifest,
)
from safemesa.phases.storage.replay_file import read_replay
from safemesa.phases.storage.run_folder import LAYOUT_FILE, ROWS_FILE, RunFolder, provenance
from safemesa.phases.storage.seen import Seen, load_seen, seen_in, seen_in_logs, together
from safemesa.shield import runtime
from safemesa.shield.model_card import model_card
from safemesa.shield.time_to_act import SAME_LIMIT, measured_time_to_act
from safemesa.shield.training_data import TrainingData, describe_training_data

ONNX_FILE, MONITOR_ONNX_FILE = "shield.onnx", "shield_monitor.onnx"

KNOWN_ANSWERS = 32
CHANCE = 0.5
"""AUROC of a risk that knows nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShieldOptions:
    """What the export decides beyond the risk model; everything ends in the manifest."""

    risk_limit: float | None = None
    """Proposals above it are overridden; default: the limit the model was made for."""
    release_limit: float | None = None
    """Risk at which the policy gets control back; default: the risk limit (no hysteresis)."""
    minimum_dwell: float = 0.0
    """Seconds for which a recovery lasts at least."""
    safe_action: tuple[float, ...] | None = None
    """The action of every fault, in physical units; default: zero, or the nearest that is
    allowed. Set it: only you know what is safe for your robot."""
    fallback: str = "constant"
    """Give that safe action, or `hold` the last executed one."""
    outside_training: str = "record"
    """Where an observation is unlike the training data: `record` it, `slow` half of the way to
    the safe action, `recover`, or `stop` with the safe action."""
    dynamics_changed: str = "record"
    """Where the monitor says that the robot has changed: `record` it, `tighten` the risk limit,
    `recover`, or `stop` with the safe action."""
    outside_dynamics: str = "record"
    """Where the monitor's networks know too little: the same."""
    tighten: float = 0.5
    """Factor of `tighten` on the risk limit."""
    force: bool = False
    """Allow enforcing although the log holds few violations, or the calibration speaks against."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A risk model and what is known about how it came about."""

    model: RiskModel
    config: RunConfig
    spaces: Spaces
    log: Mapping[str, Any] | None
    """Transitions, violations, episodes, provenance of the new robot's log; None if unknown."""
    calibration: Any = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    seen: Seen | None = None
    """What the model was trained on; None if unknown."""
    monitor: Tracker | None = None
    """The dynamics monitor that was adapted beside it, if any."""

    @property
    def limit(self) -> float:
        """Risk above which the guard takes over: found from the data, or that of the settings.

        Raises:
            ConfigurationError: there is none.
        """
        found = self.model.limit
        limit = self.config.risk_limit if found is None else float(found)
        if limit is None:
            raise ConfigurationError(
                f"neither the risk model nor its guard {self.config.guard!r} has a risk limit. "
                "Give one: --risk-limit."
            )
        return limit

    @property
    def violations(self) -> int | None:
        """Times that the new robot's log enters a violation; None if unknown."""
        if self.log is None:
            return None
        # Risk models of earlier versions know the violating rows alone.
        return int(self.log.get("violation_events", self.log["violations"]))


def find_source(folder: Path, which: str = "newest") -> Source:
    """The risk model of a run folder or of an adapted artefact.

    Args:
        folder: what `safemesa run`, `deploy` or `adapt` wrote.
        which: of a run, `adapted` (after Phase 2), `deployed` (after Phase 3) or the `newest`.

    Raises:
        CheckpointError: there is none.
        ConfigurationError: `which` is none of these.
    """
    if which not in ("newest", "adapted", "deployed"):
        raise ConfigurationError(f"model is {which!r}; expected newest, adapted or deployed.")
    run = RunFolder(folder)
    if not run.config_file.is_file():
        if which != "newest":
            raise ConfigurationError(
                f"{folder} is no run folder, so it holds one risk model; leave --model out."
            )
        return _source(folder)
    artefact = run.risk_model if which == "adapted" else run.deployed_model
    if which == "newest" and not artefact.is_dir():
        artefact = run.risk_model
    if not artefact.is_dir():
        raise CheckpointError(
            f"{folder} holds no {which} risk model. Let the run go on, choose another --model, or "
            "give a run of an arm that has a risk model."
        )
    return _source(artefact, run)


def _source(artefact: Path, run: RunFolder | None = None) -> Source:
    model, config, spaces = load_risk_model(artefact)
    _, _, notes = read_manifest(artefact, "risk_model")
    log, own = notes.get("log"), None
    if run is not None and run.test_log.is_dir():
        own = OfflineTasks.load(run.test_log)
        log = own.log_facts()
    monitor, threshold = _monitor(artefact, config, spaces)
    facts = {
        "arm": config.arm,
        "domain": config.domain,
        "seed": config.seed,
        "gamma_risk": config.risk.gamma_risk,
        "risk_model_sha256": sha256(artefact / "model.safetensors"),
        "notes": {name: value for name, value in notes.items() if name not in ("log",)},
        **({} if monitor is None else {"monitor_threshold": threshold}),
        **provenance(),
    }
    calibration = notes.get("calibration")
    return Source(
        model=model,
        config=config,
        spaces=spaces,
        log=log if isinstance(log, dict) and isinstance(log.get("violations"), int) else None,
        calibration=calibration,
        provenance=facts,
        seen=_seen(artefact, model, spaces, run, own),
        monitor=monitor,
    )


def _monitor(artefact: Path, config: RunConfig, spaces: Spaces) -> tuple[Tracker | None, Any]:
    """The monitor beside a risk model, and what is known of its threshold.

    A run's own is none: its threshold is of a monitor that goes on learning, which no shield does.
    """
    folder = artefact / MONITOR
    if not folder.is_dir():
        return None, None
    tracker = load_monitor(folder, tracker_template(config.monitor, spaces))
    threshold = read_manifest(folder, MONITOR)[2].get("threshold")
    return tracker, threshold


def _seen(
    artefact: Path,
    model: RiskModel,
    spaces: Spaces,
    run: RunFolder | None,
    own: OfflineTasks | None,
) -> Seen | None:
    """What a risk model was trained on: in Phase 1, in Phase 2, and in Phase 3."""
    places = [artefact] if run is None else [run.risk_model, run.prior]
    signals = spaces.obs_size + spaces.action_size
    found = [seen for place in places if (seen := load_seen(place, signals)) is not None][:1]
    if not found and model.rehearsal is not None:
        rows, places = np.asarray(model.rehearsal), rehearsal_layout(spaces).places
        mean, std = np.asarray(model.normaliser.mean), np.asarray(model.normaliser.std)
        action = spaces.from_unit(rows[:, places["action"]])
        found = [seen_in(rows[:, places["obs"]] * std + mean, action)]
    scratch = run is not None and not (run.prior / "manifest.json").is_file()
    if own is not None and (found or scratch):
        found.append(seen_in_logs((own.only_log(),)))
    if run is not None and found and artefact == run.deployed_model:
        run.check_files(ROWS_FILE, LAYOUT_FILE)
        columns = read_replay(run.replay)
        if len(columns["obs"]):
            action = spaces.from_unit(columns["action"])
            found.append(seen_in(columns["obs"], action))
    return together(found) if found else None


def reasons_to_monitor(source: Source, options: ShieldOptions) -> list[str]:
    """Why this shield may only watch, unless it is forced to act; empty: it may act."""
    found = []
    if source.violations is None:
        found.append(
            "It is not known how many violations the new robot's log holds, so nothing speaks "
            "for this model on that robot."
        )
    elif source.violations < FEW_VIOLATIONS:
        found.append(
            f"The new robot's log holds {source.violations} violations, fewer than "
            f"{FEW_VIOLATIONS}: how well the risk fits this robot is hardly known."
        )
    null = _found(source.calibration, "null")
    if null.get("sound") is False:
        found.append(
            "The calibration failed its null test (shuffled labels must score as chance does): "
            "labels leak, and none of its numbers count."
        )
    score = _found(_found(source.calibration, "scores"), "auroc")
    low, value = score.get("low"), score.get("value")
    if isinstance(low, float) and isinstance(value, float) and low <= CHANCE:
        found.append(
            f"The calibration does not show that the risk tells danger from safety: AUROC "
            f"{value:.3f}, which may be as low as {low:.3f}, and chance has {CHANCE}."
        )
    warns, limit = time_to_act(source, options), exported_limit(source, options)
    # Where a lower limit comes too late, this one does.
    if warns and warns["too_late"] and warns["limit"] <= limit * (1.0 + SAME_LIMIT):
        found.append(f"A shield at this limit comes too late: {warns['summary']}.")
    return found


def warnings_of(source: Source, options: ShieldOptions) -> list[str]:
    """What a user of the shield must be told."""
    found = reasons_to_monitor(source, options)
    if found and options.force:
        found.append("Enforcing was allowed all the same (--force).")
    if source.calibration is None:
        found.append(
            "No calibration came with this model: its risk is a score until one does, and nobody "
            "measured whether it warns in time (`safemesa evaluate --out`, then --calibration)."
        )
    else:
        found += _timing_warnings(time_to_act(source, options))
    if _provenance(source).get("dt_declared") is False:
        found.append(
            "The logs do not say how long a step takes, so 1 s was taken: limits of age, period "
            "and rate are wrong unless it is. Import them with dt."
        )
    if source.monitor is None and source.config.monitor.enabled:
        found.append(
            "The run's dynamics monitor is not in this shield: its threshold is of a monitor that "
            "goes on learning, and a shield's learns nothing (`safemesa meta-train "
            "--monitor.enabled` makes one for shields)."
        )
    if options.safe_action is None:
        found.append(
            "The safe action was not set and is zero, or the nearest action that is allowed."
        )
    return found


def _timing_warnings(warns: Mapping[str, Any] | None) -> list[str]:
    """Where nobody knows how early the shield warns, or it acts nearly all the time."""
    if warns is None:
        return [
            "The calibration does not say whether this shield warns in time: `safemesa evaluate` "
            "of this version measures it."
        ]
    found = []
    if warns["short_sighted"]:
        found.append(
            "`safemesa evaluate` found that the risk may look too short ahead to warn in time: "
            "see its warnings, and learn with a longer horizon."
        )
    if not warns["at_exported_limit"]:
        found.append(
            "Whether this shield warns in time was measured at another limit than its own: "
            f"{warns['summary']}."
        )
    elif warns["useless"]:
        found.append(
            f"At this limit {warns['calm_time_share']:.0%} of calm time is flagged: nearly "
            "everything would be overridden."
        )
    return found


def exported_limit(source: Source, options: ShieldOptions) -> float:
    """Risk above which the shield takes over."""
    return source.limit if options.risk_limit is None else options.risk_limit


def time_to_act(source: Source, options: ShieldOptions) -> dict[str, Any] | None:
    """How early the risk warns at the limit that is exported, or at the nearest measured one.

    None where the calibration does not say it.
    """
    found = None
    if source.config.risk_limit is None:
        found = source.model.limit
    return measured_time_to_act(
        source.calibration,
        limit=exported_limit(source, options),
        found=None if found is None else float(found),
    )


def _found(record: Any, name: str) -> Mapping[str, Any]:
    """A part of what a calibration says; empty where it does not."""
    part = record.get(name) if isinstance(record, Mapping) else None
    return part if isinstance(part, Mapping) else {}


def _provenance(source: Source) -> Mapping[str, Any]:
    """That of the new robot's log."""
    told = (source.log or {}).get("provenance", {})
    return told if isinstance(told, dict) else {}


def export_shield(
    source: Source, out: Path, options: ShieldOptions | None = None, *, onnx: bool = False
) -> dict[str, Any]:
    """Writes the folder; returns its manifest. What was written is loaded again and checked.

    Raises:
        ConfigurationError: an option is impossible, or `onnx` is not installed.
        OutputFolderError: `out` exists or cannot be written.
    """
    options = options or ShieldOptions()
    trained_on = training_data(source)
    section = _shield_section(source, options, trained_on)
    tensors = shield_tensors(source.model) | (trained_on.tensors() if trained_on else {})
    if source.monitor is not None:
        tensors |= monitor_tensors(source.monitor)
    with atomic_folder(out) as folder:
        save_tensors(folder / runtime.WEIGHTS, tensors)
        write_atomic(folder / runtime.RUNTIME, Path(runtime.__file__).read_bytes())
        if onnx:
            from safemesa.shield.onnx_export import write_monitor_onnx, write_onnx

            write_onnx(folder / ONNX_FILE, source.model, source.spaces)
            if source.monitor is not None:
                tensors_of = {name: tensors[name] for name in monitor_tensors(source.monitor)}
                write_monitor_onnx(
                    folder / MONITOR_ONNX_FILE,
                    tensors_of,
                    float(source.monitor.usual.outside),
                    source.spaces,
                )
        manifest = {
            "format": runtime.FORMAT,
            "kind": "shield",
            "software": f"safemesa {__version__}",
            "name": source.config.domain,
            "warnings": warnings_of(source, options),
            "shield": section,
            "time_to_act": time_to_act(source, options),
            "calibration": source.calibration,
            "log": source.log,
            "provenance": source.provenance,
            "known_answers": _known_answers(source),
        }
        write_atomic(folder / runtime.CARD, model_card(manifest).encode())
        written = sorted(path.name for path in folder.iterdir())
        manifest["files"] = {name: sha256(folder / name) for name in written}
        manifest["seal"] = runtime.seal_of(manifest)
        write_json(folder / runtime.MANIFEST, manifest)
        try:
            runtime.check_folder(folder)
        except runtime.ShieldError as error:
            raise ConfigurationError(f"this shield cannot run as asked: {error}") from error
    return manifest


def training_data(source: Source) -> TrainingData | None:
    """What the shield is told of its training data; None where that is unknown or too little."""
    if source.seen is None:
        return None
    spaces = source.spaces
    low, high = np.asarray(spaces.action_low), np.asarray(spaces.action_high)
    return describe_training_data(
        source.seen,
        np.concatenate([np.asarray(source.model.normaliser.mean), 0.5 * (low + high)]),
        np.concatenate([np.asarray(source.model.normaliser.std), 0.5 * (high - low)]),
        spaces.obs_size,
    )


def _shield_section(
    source: Source, options: ShieldOptions, trained_on: TrainingData | None
) -> dict[str, Any]:
    """All that decides, in physical units."""
    spaces = source.spaces
    limit = exported_limit(source, options)
    release = limit if options.release_limit is None else options.release_limit
    if not math.isfinite(options.minimum_dwell):
        raise ConfigurationError(f"minimum_dwell is {options.minimum_dwell}; expected seconds.")
    if not 0.0 <= release <= limit <= 1.0:
        raise ConfigurationError(
            f"release_limit is {release} and risk_limit {limit}; expected 0 <= release <= limit "
            "<= 1."
        )
    if options.outside_training not in runtime.OUTSIDE_POLICIES:
        raise ConfigurationError(
            f"outside_training is {options.outside_training!r}; expected "
            f"{', '.join(runtime.OUTSIDE_POLICIES)}."
        )
    for name in ("dynamics_changed", "outside_dynamics"):
        if getattr(options, name) not in runtime.MONITOR_POLICIES:
            raise ConfigurationError(
                f"{name} is {getattr(options, name)!r}; expected "
                f"{', '.join(runtime.MONITOR_POLICIES)}."
            )
    for name in ("dynamics_changed", "outside_dynamics", "tighten"):
        given = getattr(options, name)
        if source.monitor is None and given != getattr(ShieldOptions(), name):
            raise ConfigurationError(
                f"{name} is {given!r}, but this model has no dynamics monitor that could say so. "
                "Make one with `safemesa meta-train --monitor.enabled` and `adapt`, or leave the "
                "option out."
            )
    against = reasons_to_monitor(source, options)
    units = units_of(_provenance(source))
    signals = spaces.obs_size + spaces.action_size
    ranges = [
        {"trained_low": low, "trained_high": high}
        for low, high in (
            zip(trained_on.low.tolist(), trained_on.high.tolist(), strict=True)
            if trained_on
            else [(None, None)] * signals
        )
    ]
    return {
        "observations": [
            {
                "name": name,
                "unit": units.get(name),
                "mean": float(source.model.normaliser.mean[i]),
                "std": float(source.model.normaliser.std[i]),
                "low": None,
                "high": None,
                **ranges[i],
            }
            for i, name in enumerate(spaces.obs_names)
        ],
        "actions": [
            {
                "name": name,
                "unit": units.get(name),
                "low": spaces.action_low[i],
                "high": spaces.action_high[i],
                "rate": None,
                "safe": safe,
                **ranges[spaces.obs_size + i],
            }
            for i, (name, safe) in enumerate(
                zip(spaces.action_names, _safe_action(spaces, options), strict=True)
            )
        ],
        "fallback": options.fallback,
        "dt": spaces.dt,
        "recovery": _recovery(source),
        "risk": {
            "limit": limit,
            "release_limit": release,
            "minimum_dwell": options.minimum_dwell,
        },
        "timing": {
            "maximum_age": 2.0 * spaces.dt,
            "maximum_period": 2.0 * spaces.dt,
            "policy_budget": spaces.dt,
        },
        "enforce": {
            "allowed": options.force or not against,
            "because": against[0] if against else "",
        },
        "training": trained_on and trained_on.manifest(options.outside_training),
        "networks": {
            "critic": _sizes(source.model.critic.ensemble.members.weights),
            "recovery": _recovery_sizes(source.model),
            "members": int(source.model.critic.ensemble.members.biases[0].shape[0]),
        },
        **(
            {} if source.monitor is None else {"monitor": _monitor_section(source.monitor, options)}
        ),
    }


def _monitor_section(monitor: Tracker, options: ShieldOptions) -> dict[str, Any]:
    members = monitor.model.ensemble.members
    obs_size = monitor.model.scaling.targets.mean.shape[0] - 1
    return {
        "networks": monitor.model.ensemble.count,
        "sizes": [*_sizes(members.weights)[:-1], 2 * obs_size],
        "levels": len(_scale(monitor)[0]),
        "outside": float(monitor.usual.outside),
        "threshold": float(monitor.threshold),
        "reference": float(monitor.reference),
        "dynamics_changed": options.dynamics_changed,
        "outside_training": options.outside_dynamics,
        "tighten": options.tighten,
    }


def _scale(monitor: Tracker) -> np.ndarray:
    """Surprises and their scores `[2, levels]`, without what only fills the tracker's arrays."""
    levels, scores = np.asarray(monitor.usual.levels), np.asarray(monitor.usual.scores)
    kept = max(int(np.count_nonzero(levels < np.finfo(np.float32).max)), 1)
    return np.stack([levels[:kept], scores[:kept]])


def monitor_tensors(monitor: Tracker) -> dict[str, np.ndarray]:
    """The monitor by the names that the runtime expects: without reward and catastrophe."""
    ensemble, scaling = monitor.model.ensemble, monitor.model.scaling
    targets = scaling.targets.mean.shape[0]
    # Of the last layer, means and log-variances of the observations.
    kept = np.r_[: targets - 1, targets : 2 * targets - 1]
    layers = list(zip(ensemble.members.weights, ensemble.members.biases, strict=True))
    tensors = {}
    for i, layer in enumerate(layers):
        weight, bias = (np.asarray(one) for one in layer)
        last = i == len(layers) - 1
        tensors[f"monitor.weights.{i}"] = weight[..., kept] if last else weight
        tensors[f"monitor.biases.{i}"] = bias[..., kept] if last else bias
    pairs = {
        "inputs": (scaling.inputs.mean, scaling.inputs.std),
        "changes": (scaling.targets.mean[:-1], scaling.targets.std[:-1]),
        "log_variances": (ensemble.least_log_variance[:-1], ensemble.most_log_variance[:-1]),
    }
    tensors |= {f"monitor.{name}": np.stack([*map(np.asarray, two)]) for name, two in pairs.items()}
    return tensors | {"monitor.scale": _scale(monitor)}


def _safe_action(spaces: Spaces, options: ShieldOptions) -> list[float]:
    low, high = spaces.action_low, spaces.action_high
    if options.safe_action is None:
        pairs = zip(low, high, strict=True)
        return [min(max(0.0, bottom), top) for bottom, top in pairs]
    given = list(options.safe_action)
    fits = len(given) == spaces.action_size and all(
        math.isfinite(x) and bottom <= x <= top
        for x, bottom, top in zip(given, low, high, strict=False)
    )
    if not fits:
        raise ConfigurationError(
            f"safe_action is {given}; expected {spaces.action_size} numbers from {list(low)} to "
            f"{list(high)}."
        )
    return given


def _recovery_sizes(model: RiskModel) -> list[int] | None:
    """Layers of the recovery policy; None where it is no network."""
    if not isinstance(model.recovery, RecoveryNetwork):
        return None
    return _sizes(model.recovery.network.weights)


def _recovery(source: Source) -> dict[str, Any]:
    """Who recovers, in words and numbers that the runtime knows; else it asks its caller."""
    exported = source.model.recovery.exported(source.spaces)
    return exported or {"kind": "external", "name": source.config.recovery.kind}


def _sizes(weights: tuple[jax.Array, ...]) -> list[int]:
    return [int(weights[0].shape[-2]), *(int(weight.shape[-1]) for weight in weights)]


def shield_tensors(model: RiskModel) -> dict[str, np.ndarray]:
    """Weights by the names that the runtime expects."""
    networks = {"critic": model.critic.ensemble.members}
    if isinstance(model.recovery, RecoveryNetwork):
        networks["recovery"] = model.recovery.network
    tensors = {}
    for name, network in networks.items():
        for i, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
            tensors[f"{name}.weights.{i}"] = np.asarray(weight)
            tensors[f"{name}.biases.{i}"] = np.asarray(bias)
    return tensors


def _known_answers(source: Source) -> dict[str, Any]:
    """What JAX computes on a few states, for the runtime to repeat."""
    obs, action = draw_inputs(source.model, source.spaces, KNOWN_ANSWERS)
    risk, recovery = reference_answers(source.model, source.spaces, obs, action)
    answers = {
        "observations": obs.tolist(),
        "actions": action.tolist(),
        "risks": risk.tolist(),
        "recovery_actions": recovery.tolist(),
    }
    if source.monitor is None:
        return answers
    # Steps as long as usual, from there.
    targets = source.monitor.model.scaling.targets
    mean, std = (np.asarray(one)[:-1] for one in (targets.mean, targets.std))
    drawn = generator(1, Stream.KNOWN_ANSWERS).normal(size=obs.shape)
    following = (obs + mean + std * drawn).astype(np.float32)
    rows = (obs, source.spaces.to_unit(action), following)
    seen = look(source.monitor.model, *map(jnp.asarray, rows))
    return answers | {
        "next_observations": following.tolist(),
        "surprises": np.asarray(seen.surprise).tolist(),
    }


def draw_inputs(
    model: RiskModel, spaces: Spaces, count: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Observations around the training data and uniform actions, in physical units (float32)."""
    rng = generator(seed, Stream.KNOWN_ANSWERS)
    mean, std = np.asarray(model.normaliser.mean), np.asarray(model.normaliser.std)
    obs = mean + 2.0 * std * rng.normal(size=(count, spaces.obs_size))
    action = rng.uniform(spaces.action_low, spaces.action_high, (count, spaces.action_size))
    return obs.astype(np.float32), action.astype(np.float32)


def reference_answers(
    model: RiskModel, spaces: Spaces, obs: np.ndarray, action: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """JAX's risks `[n]` and recovery actions `[n, act]` for physical inputs."""
    risk = model.risk(jnp.asarray(obs), jnp.asarray(spaces.to_unit(action)))
    unit = model.recover(jnp.asarray(obs))
    return np.asarray(risk), np.asarray(spaces.from_unit(unit))


def read_calibration(path: Path) -> Any:
    """What `safemesa evaluate --out` wrote; earlier versions did not measure the time to act.

    Raises:
        ConfigurationError: the file is something else, which would say nothing of the risk.
    """
    record = read_json(path, error=ConfigurationError)
    if not (_found(_found(record, "scores"), "auroc") and _found(record, "null")):
        raise ConfigurationError(
            f"{path} is no calibration: it has no scores with an AUROC and a null test. Give the "
            "file that `safemesa evaluate --out` wrote."
        )
    return record
