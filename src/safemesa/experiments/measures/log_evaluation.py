"""Does the risk warn in time, on logs that it was not fitted to? No environment is needed.

Held-out episodes: the new robot's log is cut into folds; the prior is adapted to all but one and
asked about that one. Leave one task out: a prior is learned without a training task, adapted to a
small part of its log, and asked about the rest.

Where the guard finds its limit from the data, every adapted model has one of its own. Critics
differ in their level, so the limit of one means nothing to another: limits are then multiples of
the model's own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from safemesa.core.errors import DatasetError
from safemesa.core.spaces import Spaces
from safemesa.core.streams import Stream, generator
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.task_log import TaskLog
from safemesa.experiments.measures.log_metrics import (
    LIMITS,
    MULTIPLES,
    Predictions,
    WarningTime,
    alarm_levels,
    at_limit,
    join_predictions,
    limit_for_target,
    logged_outcomes,
    scores,
    short_sighted,
    time_to_act,
    warning_time,
)
from safemesa.experiments.measures.risk_calibration import area_under_curve
from safemesa.guards.settings import LimitSettings
from safemesa.phases.adapt import adapt
from safemesa.phases.config import RunConfig
from safemesa.phases.horizon import suggested_horizon
from safemesa.phases.log_tables import chosen_rows
from safemesa.phases.meta_train import meta_train
from safemesa.phases.storage.artefacts import Prior, RiskModel
from safemesa.phases.takeover_limit import find_limit

NULL_TOLERANCE = 0.05
"""Half width of [0.45, 0.55], in which the AUROC of shuffled labels must lie."""
NULL_ERRORS = 3.0
"""Standard errors that small logs are allowed beyond that."""
ROWS_PER_CALL = 65_536

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Rows of one log: what the prior is adapted to, and what it is asked about."""

    log: TaskLog
    fitted: Int[np.ndarray, " fitted"]
    asked: Int[np.ndarray, " asked"]


def held_out_folds(log: TaskLog, folds: int, seed: int) -> list[Split]:
    """Cuts a log by episode; every episode is asked about once.

    All folds fit the same number of rows, so that they are adapted in one compiled call; the few
    rows that are too many are left out at the end of a safe episode.

    Raises:
        DatasetError: there are fewer than `folds` episodes.
    """
    unit, violating = _dealt(log, folds, seed)
    fold_of_row = unit[np.unique(log.columns["episode"], return_inverse=True)[1]]
    counts = [int((fold_of_row != fold).sum()) for fold in range(folds)]
    splits = []
    for fold in range(folds):
        fitted = np.flatnonzero(fold_of_row != fold)
        # Safe rows last, so that no violation is cut off.
        fitted = np.concatenate([fitted[violating[fitted]], fitted[~violating[fitted]]])
        fitted = np.sort(fitted[: min(counts)])
        splits.append(Split(log=log, fitted=fitted, asked=np.flatnonzero(fold_of_row == fold)))
    return splits


def few_shot_split(log: TaskLog, transitions: int, seed: int) -> Split:
    """Whole episodes until there are `transitions` rows (the last one is cut); asks the others.

    Raises:
        DatasetError: no episode would be left to ask about.
    """
    episodes, number, lengths = np.unique(
        log.columns["episode"], return_inverse=True, return_counts=True
    )
    order = generator(seed, Stream.FEW_SHOT).permutation(len(episodes))
    taken = 1 + int(np.searchsorted(np.cumsum(lengths[order]), transitions))
    if taken >= len(episodes):
        raise DatasetError(
            f"task {log.name!r} has {log.transitions} transitions in {len(episodes)} episodes; "
            f"none is left to ask about after {transitions} were adapted to. Lower "
            "--adapt-transitions."
        )
    fitted = np.flatnonzero(np.isin(number, order[:taken]))[:transitions]
    return Split(log=log, fitted=fitted, asked=np.flatnonzero(np.isin(number, order[taken:])))


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of the risk beside how early it warns at its limit."""

    lead: float | None = None
    """Seconds that are needed to act; None: half the effective horizon."""
    target: float | None = None
    """Largest share of violations that may come unannounced; None: no limit is chosen."""


def finds_limit(config: RunConfig) -> bool:
    """Whether the guard's limit is found from the data."""
    return config.guard == "takeover" and config.risk_limit is None


def adapt_to(
    config: RunConfig, priors: Sequence[Prior], splits: Sequence[Split], data: OfflineTasks
) -> list[RiskModel]:
    """Each prior adapted to what is fitted; limits are not looked for."""
    logs = [
        replace(data, train=(), test=_rows(split.log, split.fitted, "test")) for split in splits
    ]
    # Shuffled costs leave no calm states that a limit could be found from.
    if finds_limit(config):
        config = replace(config, guard_settings=replace(config.guard_settings, risk_limit=1.0))
    configs = [replace(config, seed=config.seed + index) for index in range(len(splits))]
    # Only logs of which as many rows are learned from are adapted to in one compiled call.
    learned = np.array([len(chosen_rows(one.only_log(), config.sampling)) for one in logs])
    models: dict[int, RiskModel] = {}
    for count in np.unique(learned):
        same = np.flatnonzero(learned == count).tolist()
        found = adapt(
            [configs[index] for index in same],
            [priors[index] for index in same],
            [logs[index] for index in same],
        )
        models.update(zip(same, found, strict=True))
    return [models[index] for index in range(len(splits))]


def adapt_to_noise(
    config: RunConfig, priors: Sequence[Prior], splits: Sequence[Split], data: OfflineTasks
) -> list[RiskModel]:
    """Each prior adapted to shuffled costs, which say nothing of what begins in a violation."""
    return adapt_to(
        replace(config, sampling=replace(config.sampling, safe_starts=False)), priors, splits, data
    )


def limit_found(model: RiskModel, config: RunConfig, split: Split, spaces: Spaces) -> float:
    """The limit that `adapt` finds for a model; 1 where its guard's limit is given.

    Raises:
        DatasetError: there is none.
    """
    if not finds_limit(config):
        return 1.0
    found = find_limit(model, config, _rows(split.log, split.fitted, "test"), spaces).limit
    # Levels are divided by it.
    return max(found, float(np.finfo(np.float32).tiny))


def asked_risk(model: RiskModel, split: Split, spaces: Spaces) -> np.ndarray:
    """The risk of what is asked, `[asked]`."""
    obs = np.asarray(split.log.columns["obs"])[split.asked]
    action = spaces.to_unit(np.asarray(split.log.columns["action"])[split.asked])
    return risk_of(model, obs, action)


def risk_of(model: RiskModel, obs: np.ndarray, action: np.ndarray) -> np.ndarray:
    """Risk `[n]` of observations `[n, o]` and actions in [-1, 1] `[n, a]`, of any number."""
    parts = [
        np.asarray(_risk(model, jnp.asarray(obs[start : start + ROWS_PER_CALL]),
                         jnp.asarray(action[start : start + ROWS_PER_CALL])))
        for start in range(0, len(obs), ROWS_PER_CALL)
    ]  # fmt: skip
    return np.concatenate(parts)


@jax.jit
def _risk(model: RiskModel, obs: jax.Array, action: jax.Array) -> jax.Array:
    return model.risk(obs, action)


def with_outcomes(split: Split, risk: np.ndarray, gamma: float, unit: float = 1.0) -> Predictions:
    """Predictions beside what followed in the log; only steps before first violations.

    `unit` is what limits are multiples of (`Predictions.unit`).
    """
    columns = split.log.columns
    followed = logged_outcomes(
        np.asarray(columns["cost"]),
        np.asarray(columns["terminated"]),
        np.asarray(columns["episode"]),
        gamma,
    )
    before = followed.pop("before")[split.asked]
    chosen = {name: value[split.asked][before] for name, value in followed.items()}
    count = int(before.sum())
    return Predictions(
        **chosen,
        risk=risk[before],
        group=np.zeros(count, np.int64),
        unit=np.full(count, unit),
    )


def evaluate_held_out(
    config: RunConfig, prior: Prior, data: OfflineTasks, folds: int, question: Question
) -> dict[str, Any]:
    """How early one prior warns on the log of the new robot, fold by fold."""
    log, spaces, gamma = data.only_log(), data.spaces, config.risk.gamma_risk
    time = warning_time(gamma, spaces.dt, question.lead)
    splits = held_out_folds(log, folds, config.seed)
    shuffled = [replace(one, log=_shuffled(one.log, config.seed)) for one in splits]
    models = adapt_to(config, [prior] * folds, splits, data)
    units = [
        limit_found(model, config, one, spaces) for model, one in zip(models, splits, strict=True)
    ]
    parts = [
        with_outcomes(one, asked_risk(model, one, spaces), gamma, unit)
        for model, one, unit in zip(models, splits, units, strict=True)
    ]
    noise = adapt_to_noise(config, [prior] * folds, shuffled, data)
    noise_risks = [
        asked_risk(model, one, spaces) for model, one in zip(noise, shuffled, strict=True)
    ]
    # Folds hold different episodes of one log, which are numbered within the log.
    pooled = Predictions(
        **{name: np.concatenate([vars(one)[name] for one in parts]) for name in vars(parts[0])}
    )
    limit = _limit_notes(config, units)
    if finds_limit(config):
        whole = Split(log=log, fitted=np.arange(log.transitions), asked=np.arange(0))
        (model,) = adapt_to(config, [prior], [whole], data)
        limit["value"] = limit_found(model, config, whole, spaces)
    return {
        "kind": "held-out episodes",
        "task": log.name,
        "folds": folds,
        "fitted_transitions": len(splits[0].fitted),
        **_report(pooled, config, data, time, question, limit),
        "null": null_test(shuffled, noise_risks),
    }


def evaluate_left_out(
    config: RunConfig,
    data: OfflineTasks,
    names: Sequence[str],
    transitions: int,
    question: Question,
    tell: Tell = lambda message: None,
) -> dict[str, Any]:
    """How early priors warn that never saw the task that they are asked about.

    One more prior is learned from shuffled costs: it must know nothing.
    """
    spaces, gamma = data.spaces, config.risk.gamma_risk
    time = warning_time(gamma, spaces.dt, question.lead)
    chosen = [log for log in data.train if log.name in names]
    splits = [few_shot_split(log, transitions, config.seed) for log in chosen]
    priors = []
    for number, log in enumerate(chosen, start=1):
        tell(f"prior {number} of {len(chosen) + 1}: without {log.name}")
        priors.append(meta_train([config], _without(data, log.name))[0])
    tell(f"prior {len(chosen) + 1} of {len(chosen) + 1}: shuffled costs, without {chosen[0].name}")
    noise = replace(data, train=tuple(_shuffled(log, config.seed) for log in data.train))
    priors.append(meta_train([config], _without(noise, chosen[0].name))[0])
    null = replace(splits[0], log=_shuffled(splits[0].log, config.seed))
    models = adapt_to(config, priors[:-1], splits, data)
    (null_model,) = adapt_to_noise(config, priors[-1:], [null], data)
    pairs = list(zip(models, splits, strict=True))
    units = [limit_found(model, config, one, spaces) for model, one in pairs]
    parts = [
        with_outcomes(one, asked_risk(model, one, spaces), gamma, unit)
        for (model, one), unit in zip(pairs, units, strict=True)
    ]
    limit = _limit_notes(config, units)
    used = _used(limit)
    return {
        "kind": "leave one task out",
        "tasks": [
            {
                "task": log.name,
                "at_limit": at_limit(alarm_levels(part, time), used),
                **scores(part, gamma, seed=config.seed),
            }
            for log, part in zip(chosen, parts, strict=True)
        ],
        "fitted_transitions": transitions,
        **_report(join_predictions(parts), config, data, time, question, limit),
        "null": null_test([null], [asked_risk(null_model, null, spaces)]),
    }


def _limit_notes(config: RunConfig, units: Sequence[float]) -> dict[str, Any]:
    """The limit that is used: found per model (`of_models`), or the `value` of the settings."""
    if finds_limit(config):
        return {"found": True, "value": None, "of_models": list(units)}
    value = LimitSettings().risk_limit if config.risk_limit is None else config.risk_limit
    return {"found": False, "value": value, "of_models": None}


def _used(limit: dict[str, Any]) -> float:
    """The limit that is used, in the unit of the table."""
    return 1.0 if limit["found"] else limit["value"]


def _motion(data: OfflineTasks) -> float:
    """Seconds for which the motion of the fleet lasts, or of the robot where there is no fleet."""
    logs = data.train or (replace(data.only_log(), role="train"),)
    return suggested_horizon(replace(data, train=logs, test=None))


def _report(
    predictions: Predictions,
    config: RunConfig,
    data: OfflineTasks,
    time: WarningTime,
    question: Question,
    limit: dict[str, Any],
) -> dict[str, Any]:
    """How early the risk warns, the limit that meets a target, and how well it ranks."""
    table = MULTIPLES if limit["found"] else LIMITS
    given, motion = question.lead is not None, _motion(data)
    warns = {
        "lead_given": given,
        "motion_s": motion,
        "short_sighted": short_sighted(time, None if given else motion),
        "limit": limit,
        **time_to_act(predictions, time, _used(limit), table),
    }
    if question.target is not None:
        chosen = limit_for_target(predictions, time, question.target, config.seed)
        warns["target"] = {**chosen, "risk_limit": _as_risk(chosen["limit"], limit)}
    return {
        "time_to_act": warns,
        "scores": scores(predictions, config.risk.gamma_risk, seed=config.seed),
    }


def _as_risk(chosen: float | None, limit: dict[str, Any]) -> float | None:
    """A limit of the table as a risk; None where the limit it is a multiple of is not known."""
    if chosen is None or not limit["found"]:
        return chosen
    return None if limit["value"] is None else min(chosen * limit["value"], 1.0)


def null_test(splits: Sequence[Split], risks: Sequence[np.ndarray]) -> dict[str, Any]:
    """AUROC for costs that were shuffled over rows before anything was fitted: 0.5 without leaks.

    The label is the step's own cost. A label that looks ahead would depend on how many steps are
    left, which shuffling does not change.
    """
    label = np.concatenate([np.asarray(one.log.columns["cost"])[one.asked] > 0.5 for one in splits])
    positive, negative = int(label.sum()), int((~label).sum())
    value = area_under_curve(np.concatenate(list(risks)), label)
    if not positive or not negative:
        return {"auroc": None, "standard_error": None, "sound": None}
    error = float(np.sqrt((positive + negative + 1) / (12.0 * positive * negative)))
    sound = abs(value - 0.5) <= max(NULL_TOLERANCE, NULL_ERRORS * error)
    return {"auroc": value, "standard_error": error, "sound": bool(sound)}


def _shuffled(log: TaskLog, seed: int) -> TaskLog:
    """The log with its costs exchanged between rows."""
    cost = generator(seed, Stream.EXCHANGED_COSTS).permutation(np.asarray(log.columns["cost"]))
    return replace(log, columns={**log.columns, "cost": cost})


def _without(data: OfflineTasks, name: str) -> OfflineTasks:
    return replace(data, train=tuple(log for log in data.train if log.name != name), test=None)


def _rows(log: TaskLog, rows: np.ndarray, role: str) -> TaskLog:
    columns = {name: np.asarray(values)[rows] for name, values in log.columns.items()}
    return TaskLog(name=log.name, role=role, columns=columns, parameters=log.parameters)


def _dealt(log: TaskLog, folds: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The fold of every episode, and whether each row is of an episode that violates."""
    episodes, number = np.unique(log.columns["episode"], return_inverse=True)
    if len(episodes) < folds:
        raise DatasetError(
            f"task {log.name!r} has {len(episodes)} episodes, expected at least {folds}, one per "
            "fold. Lower --folds, or log more episodes."
        )
    bad = np.zeros(len(episodes), np.bool_)
    bad[number[np.asarray(log.columns["cost"]) > 0.5]] = True
    rng = generator(seed, Stream.FOLDS)
    order = np.concatenate([rng.permutation(np.flatnonzero(bad)),
                            rng.permutation(np.flatnonzero(~bad))])  # fmt: skip
    fold = np.empty(len(episodes), np.int64)
    # Dealt like cards, so that every fold has its share of violations.
    fold[order] = np.arange(len(episodes)) % folds
    return fold, bad[number]
