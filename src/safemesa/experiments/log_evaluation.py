"""Is the risk right on logs that it was not fitted to? No environment is needed.

Held-out episodes: the new robot's log is cut into folds; the prior is adapted to all but one and
asked about that one. Leave one task out: a prior is learned without a training task, adapted to a
small part of its log, and asked about the rest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from safemesa.core.errors import DatasetError
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.task_log import TaskLog
from safemesa.experiments.calibration import area_under_curve
from safemesa.experiments.log_metrics import (
    Predictions,
    at_limit,
    calibration_and_test,
    choose_limit,
    join_predictions,
    logged_outcomes,
    scores,
    trade_off,
)
from safemesa.phases.adapt import adapt
from safemesa.phases.config import RunConfig
from safemesa.phases.meta_train import meta_train
from safemesa.phases.storage.artefacts import Prior, RiskModel
from safemesa.phases.tables import scale_actions

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
    order = np.random.default_rng(seed).permutation(len(episodes))
    taken = 1 + int(np.searchsorted(np.cumsum(lengths[order]), transitions))
    if taken >= len(episodes):
        raise DatasetError(
            f"task {log.name!r} has {log.transitions} transitions in {len(episodes)} episodes; "
            f"none is left to ask about after {transitions} were adapted to. Lower "
            "--adapt-transitions."
        )
    fitted = np.flatnonzero(np.isin(number, order[:taken]))[:transitions]
    return Split(log=log, fitted=fitted, asked=np.flatnonzero(np.isin(number, order[taken:])))


def predict(
    config: RunConfig, priors: Sequence[Prior], splits: Sequence[Split], data: OfflineTasks
) -> list[np.ndarray]:
    """Adapts each prior to what is fitted, and returns the risk of what is asked, `[asked]`."""
    logs = [
        replace(data, train=(), test=_rows(split.log, split.fitted, "test")) for split in splits
    ]
    configs = [replace(config, seed=config.seed + index) for index in range(len(splits))]
    models = adapt(configs, priors, logs)
    found = []
    for model, split in zip(models, splits, strict=True):
        obs = np.asarray(split.log.columns["obs"])[split.asked]
        action = scale_actions(np.asarray(split.log.columns["action"])[split.asked], data.spaces)
        found.append(risk_of(model, obs, action))
    return found


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


def with_outcomes(split: Split, risk: np.ndarray, gamma: float) -> Predictions:
    """Predictions beside what followed in the log; only steps before first violations."""
    columns = split.log.columns
    followed = logged_outcomes(
        np.asarray(columns["cost"]),
        np.asarray(columns["terminated"]),
        np.asarray(columns["episode"]),
        gamma,
    )
    before = followed.pop("before")[split.asked]
    chosen = {name: value[split.asked][before] for name, value in followed.items()}
    return Predictions(**chosen, risk=risk[before], group=np.zeros(int(before.sum()), np.int64))


def evaluate_held_out(
    config: RunConfig, prior: Prior, data: OfflineTasks, folds: int, target: float | None
) -> dict[str, Any]:
    """Scores of one prior on the log of the new robot, fold by fold."""
    log = data.only_log()
    splits = held_out_folds(log, folds, config.seed)
    shuffled = [replace(one, log=_shuffled(one.log, config.seed)) for one in splits]
    risks = predict(config, [prior] * (2 * folds), [*splits, *shuffled], data)
    gamma = config.risk.gamma_risk
    parts = [with_outcomes(one, risk, gamma) for one, risk in zip(splits, risks, strict=False)]
    # Folds hold different episodes of one log, which are numbered within the log.
    pooled = Predictions(
        **{name: np.concatenate([vars(one)[name] for one in parts]) for name in vars(parts[0])}
    )
    return {
        "kind": "held-out episodes",
        "task": log.name,
        "folds": folds,
        "fitted_transitions": len(splits[0].fitted),
        **_report(pooled, config, target),
        "null": null_test(shuffled, risks[folds:]),
    }


def evaluate_left_out(
    config: RunConfig,
    data: OfflineTasks,
    names: Sequence[str],
    transitions: int,
    target: float | None,
    tell: Tell = lambda message: None,
) -> dict[str, Any]:
    """Scores of priors that never saw the task that they are asked about.

    One more prior is learned from shuffled costs: it must know nothing.
    """
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
    risks = predict(config, priors, [*splits, null], data)
    gamma = config.risk.gamma_risk
    parts = [with_outcomes(one, risk, gamma) for one, risk in zip(splits, risks, strict=False)]
    limit = config.risk.risk_limit
    return {
        "kind": "leave one task out",
        "tasks": [
            {"task": log.name, **scores(part, limit, gamma, seed=config.seed)}
            for log, part in zip(chosen, parts, strict=True)
        ],
        "fitted_transitions": transitions,
        **_report(join_predictions(parts), config, target),
        "null": null_test([null], risks[-1:]),
    }


def _report(predictions: Predictions, config: RunConfig, target: float | None) -> dict[str, Any]:
    """Scores at the configured limit, the trade-off, and the limit that meets a target."""
    gamma, limit = config.risk.gamma_risk, config.risk.risk_limit
    report: dict[str, Any] = {
        "scores": scores(predictions, limit, gamma, seed=config.seed),
        "trade_off": trade_off(predictions),
    }
    if target is None:
        return report
    calibration, test = calibration_and_test(predictions, config.seed)
    risks = calibration.risk[calibration.violating]
    found = choose_limit(risks, target)
    report["target"] = {
        "miss_rate": target,
        "calibration_violations": len(risks),
        "limit": found,
        "needed_violations": int(np.ceil(1.0 / target - 1e-9)) - 1,
        "test": None if found is None else at_limit(test, found),
    }
    return report


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
    cost = np.random.default_rng(seed).permutation(np.asarray(log.columns["cost"]))
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
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(np.flatnonzero(bad)),
                            rng.permutation(np.flatnonzero(~bad))])  # fmt: skip
    fold = np.empty(len(episodes), np.int64)
    # Dealt like cards, so that every fold has its share of violations.
    fold[order] = np.arange(len(episodes)) % folds
    return fold, bad[number]
