"""Is the critic a probability? Its risk against Monte-Carlo truth, over adaptation steps.

Truth belongs to the policy whose risk Phases 1 and 2 learn (`data.next_action = "uniform"`): after
the first action every action is uniform or, of a robot that recovers but stumbles, the recovery's
with probability rho. States and actions come from the collection distribution of held-out tasks,
which no run with that seed is reported on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from safemesa.core.errors import ConfigurationError
from safemesa.core.streams import Stream, generator, root_key, substream
from safemesa.core.types import Key, PyTree
from safemesa.domains.base import AbstractJaxDomain
from safemesa.learners.targets import make_target
from safemesa.phases.adapt import adapt_with_snapshots, scratch_prior, uses_training_logs
from safemesa.phases.collection.compiled import collect_log, collect_test
from safemesa.phases.collection.tasks import sample_test_task
from safemesa.phases.config import RunConfig
from safemesa.phases.storage.artefacts import Prior, RiskModel

STEPS = (0, 1, 5, 10, 20, 50, 100)
"""Adaptation steps at which Figure 2 and the tables look."""

HELD_OUT_SEED = 10_000
"""Seed of the first held-out task; reported runs use seeds below."""

THRIFT = 4
"""Where roll-outs ask a recovery network, one of so many pairs and of so many roll-outs is made."""

TAIL = 1e-4
"""Roll-outs stop where a violation would count for less than this."""


@dataclass(frozen=True, kw_only=True)
class CalibrationResult:
    """One prior after one number of steps, pooled over held-out tasks. Pairs are `[tasks, pairs]`.

    `seed` is that of the run whose prior it is.
    """

    arm: str
    seed: int
    step: int
    predicted: np.ndarray
    true: np.ndarray
    risk_limit: float

    def row(self) -> dict[str, float | int | str]:
        """The numbers of the table: means over tasks, with the standard error of Brier's."""
        per_task = [
            risk_errors(predicted, true, self.risk_limit)
            for predicted, true in zip(self.predicted, self.true, strict=True)
        ]
        mean = {name: float(np.nanmean([one[name] for one in per_task])) for name in per_task[0]}
        brier = [one["brier"] for one in per_task]
        spread = float(np.std(brier, ddof=1) / np.sqrt(len(brier))) if len(brier) > 1 else 0.0
        pooled = expected_calibration_error(self.predicted.ravel(), self.true.ravel())
        return {
            "arm": self.arm,
            "seed": self.seed,
            "step": self.step,
            "tasks": len(per_task),
            **mean,
            "brier_standard_error": spread,
            "pooled_calibration_error": pooled,
        }


def risk_errors(
    predicted: Float[np.ndarray, " n"], true: Float[np.ndarray, " n"], limit: float
) -> dict[str, float]:
    """Errors of predicted against true risk on one task.

    `brier` is mean (Q - p)^2; `auc` ranks pairs by whether the true risk exceeds the limit;
    false positives and negatives are counted at the limit.
    """
    unsafe = true > limit
    flagged = predicted > limit
    return {
        "brier": float(np.mean(np.square(predicted - true))),
        "auc": area_under_curve(predicted, unsafe),
        "expected_calibration_error": expected_calibration_error(predicted, true),
        "bias": float(np.mean(predicted - true)),
        "false_positive_rate": _share(flagged, ~unsafe),
        "false_negative_rate": _share(~flagged, unsafe),
    }


def _share(event: np.ndarray, among: np.ndarray) -> float:
    return float(np.mean(event[among])) if among.any() else float("nan")


def area_under_curve(score: Float[np.ndarray, " n"], positive: np.ndarray) -> float:
    """Probability that a positive scores above a negative (ties count half); NaN without both."""
    positives, negatives = score[positive], np.sort(score[~positive])
    if not len(positives) or not len(negatives):
        return float("nan")
    below = np.searchsorted(negatives, positives, side="left")
    upto = np.searchsorted(negatives, positives, side="right")
    return float(np.mean((below + upto) / 2) / len(negatives))


def expected_calibration_error(
    predicted: Float[np.ndarray, " n"], true: Float[np.ndarray, " n"], bins: int = 10
) -> float:
    """Mean over bins of equal width of |mean prediction - mean truth|, weighted by their size."""
    index = np.minimum((predicted * bins).astype(int), bins - 1)
    gap = 0.0
    for one in range(bins):
        inside = index == one
        if inside.any():
            gap += inside.mean() * abs(predicted[inside].mean() - true[inside].mean())
    return float(gap)


def rollout_length(gamma_risk: float) -> int:
    """Steps after which a violation's discount is below `TAIL`."""
    return int(np.ceil(np.log(TAIL) / np.log(gamma_risk))) + 1


@partial(jax.jit, static_argnums=(0, 4, 5))
def monte_carlo_risk(
    domain: AbstractJaxDomain,
    task: PyTree,
    obs: Float[Array, "pairs obs"],
    action: Float[Array, "pairs act"],
    gamma_risk: float,
    rollouts: int,
    key: Key,
    model: RiskModel | None = None,
    recovery_share: float | Float[Array, ""] = 0.0,
) -> Float[Array, " pairs"]:
    """Discounted violation probability after a physical action, then uniform actions.

    With a model each of these is its recovery's instead, with probability `recovery_share`.
    """
    low = jnp.asarray(domain.spaces.action_low, jnp.float32)
    high = jnp.asarray(domain.spaces.action_high, jnp.float32)
    steps = rollout_length(gamma_risk)

    def rollout(obs: Array, action: Array, key: Key) -> Float[Array, ""]:
        def step(carry: tuple, index: Array) -> tuple[tuple, None]:
            state, action, running, discount, total = carry
            key_step, key_action = jax.random.split(jax.random.fold_in(key, index))
            state, result = domain.step(task, state, action, key=key_step)
            total = total + running * discount * result.cost
            ended = (result.cost > 0.5) | result.terminated
            following = jax.random.uniform(key_action, low.shape, jnp.float32, low, high)
            if model is not None:
                escape = domain.spaces.from_unit(model.recover(result.obs[None])[0])
                recovers = jax.random.bernoulli(
                    substream(key_action, Stream.STUMBLES), recovery_share
                )
                following = jnp.where(recovers, jnp.clip(escape, low, high), following)
            running = running * (1.0 - ended.astype(jnp.float32))
            return (state, following, running, discount * gamma_risk, total), None

        one = jnp.ones(())
        start = (domain.state_at(obs), action, one, one, jnp.zeros(()))
        indices = jnp.arange(steps, dtype=jnp.int32)
        return jax.lax.scan(step, start, indices)[0][-1]

    def pair(obs: Array, action: Array, key: Key) -> Float[Array, ""]:
        keys = jax.random.split(key, rollouts)
        return jnp.mean(jax.vmap(lambda one: rollout(obs, action, one))(keys))

    # Sequential over pairs: all roll-outs of all pairs at once would need gigabytes.
    return jax.lax.map(lambda args: pair(*args), (obs, action, jax.random.split(key, len(obs))))


@dataclass(frozen=True, kw_only=True)
class HeldOutTask:
    """State-action pairs of one held-out task with their true risk."""

    seed: int
    obs: np.ndarray
    action: np.ndarray
    true: np.ndarray
    rollouts: int
    """Per pair."""


def held_out_tasks(
    domain: AbstractJaxDomain,
    gamma_risk: float,
    *,
    tasks: int = 8,
    pairs: int = 400,
    rollouts: int = 256,
) -> list[HeldOutTask]:
    """Draws tasks and pairs from the collection distribution and rolls out the truth."""
    found = []
    for seed in range(HELD_OUT_SEED, HELD_OUT_SEED + tasks):
        task = sample_test_task(domain, seed)
        key_log = root_key(seed, Stream.CALIBRATION_LOG)
        key_rollouts = root_key(seed, Stream.CALIBRATION_ROLLOUTS)
        log = collect_log(domain, task, 4 * pairs, key=key_log, name="pairs", role="test")
        chosen = generator(seed, Stream.CALIBRATION_PAIRS).permutation(log.transitions)[:pairs]
        obs, action = log.columns["obs"][chosen], log.columns["action"][chosen]
        true = monte_carlo_risk(
            domain, task, jnp.asarray(obs), jnp.asarray(action), gamma_risk, rollouts, key_rollouts
        )
        found.append(
            HeldOutTask(seed=seed, obs=obs, action=action, true=np.asarray(true), rollouts=rollouts)
        )
    return found


def calibration(
    domain: AbstractJaxDomain,
    config: RunConfig,
    prior: Prior | None,
    tasks: Sequence[HeldOutTask],
    steps: Sequence[int] = STEPS,
) -> list[CalibrationResult]:
    """Adapts a prior to the test log of every held-out task and compares with the truth.

    Raises:
        ConfigurationError: the arm bootstraps from logged actions, whose risk has no roll-out, or
            its target is of no policy that can be rolled out.
    """
    if config.sampling.next_action != "uniform":
        raise ConfigurationError(
            "calibration needs sampling.next-action 'uniform': the risk of logged actions is that "
            "of a mixture of collection policies, which cannot be rolled out from a state."
        )
    share = make_target(config.target).recovery_share
    if share is None:
        raise ConfigurationError(
            f"calibration needs a risk of a policy that can be rolled out; the target "
            f"{config.target.kind!r} is of none (recovery_share)."
        )
    predicted: list[list[np.ndarray]] = [[] for _ in steps]
    truths: list[list[np.ndarray]] = [[] for _ in steps]
    limits: list[float] = []
    for task in tasks:
        one = replace(config, seed=task.seed)
        log = collect_test(domain, config.data, task.seed)
        if uses_training_logs(config) and prior is not None:
            start = prior
        else:
            start = scratch_prior(one, log)
        snapshots = adapt_with_snapshots([one], [start], [log], steps, steps=max(steps))
        scaled = jnp.asarray(domain.spaces.to_unit(task.action))
        for place, truth, models in zip(predicted, truths, snapshots[: len(steps)], strict=True):
            model = models[0]
            risk = np.asarray(_risk(model, jnp.asarray(task.obs), scaled))
            if share == 0.0:
                place.append(risk)
                truth.append(task.true)
            else:
                count = thrifty(len(risk))
                place.append(risk[:count])
                truth.append(_recovering_truth(domain, config, task, model, share))
            # That of the guard's settings, or what the data decided for this robot.
            limit = model.limit if config.risk_limit is None else config.risk_limit
            assert limit is not None  # calibrated arms have a critic and, so, a limit
            limits.append(float(limit))
    return [
        CalibrationResult(
            arm=config.arm,
            seed=config.seed,
            step=step,
            predicted=np.stack(values),
            true=np.stack(true),
            risk_limit=float(np.median(limits)),
        )
        for step, values, true in zip(steps, predicted, truths, strict=True)
    ]


def thrifty(count: int) -> int:
    """Of so many pairs or roll-outs, those taken where each roll-out asks a recovery network."""
    return max(1, count // THRIFT)


def _recovering_truth(
    domain: AbstractJaxDomain, config: RunConfig, task: HeldOutTask, model: RiskModel, share: float
) -> np.ndarray:
    """The risk of the robot that recovers as this model does; each model has its own truth."""
    count = thrifty(len(task.obs))
    bare = eqx.tree_at(lambda m: (m.limit, m.rehearsal), model, (None, None), is_leaf=_is_none)
    true = monte_carlo_risk(
        domain, sample_test_task(domain, task.seed), jnp.asarray(task.obs[:count]),
        jnp.asarray(task.action[:count]), config.risk.gamma_risk, thrifty(task.rollouts),
        root_key(task.seed, Stream.CALIBRATION_ROLLOUTS), bare, share,
    )  # fmt: skip
    return np.asarray(true)


def _is_none(leaf: object) -> bool:
    return leaf is None


@jax.jit
def _risk(model: PyTree, obs: Array, action: Array) -> Array:
    return model.risk(obs, action)
