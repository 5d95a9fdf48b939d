"""`python -m benchmarks.planners`: are CARL's reduced planners as good as the full one?

A model is fitted to the training logs of Navigation (CARL-Offline). From the same states of these
logs, each budget plans through that same model with caution, and a JSON line per number says:

- `plan_cost_excess`: imagined cost of its first plan, judged by many particles, relative to that of
  the full planner's (0: as good, positive: worse);
- `first_action_distance`: between its first action and the full planner's (an action has size 1);
- `executed_return_ratio`: return of following it for `--steps` steps in the true training task,
  relative to the full planner (rewards are negative, so above 1 is worse);
- `violations`: states from which that violated.

`paper_again` is the full planner with other noise: what even an equal planner would show.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measure import Measurement, summary
from safemesa.core.types import PyTree
from safemesa.domains.base import AbstractJaxDomain
from safemesa.domains.registry import domain as find_domain
from safemesa.experiments.arms import configure
from safemesa.learners.carl.learner import CARL, ModelState, PlanState
from safemesa.learners.carl.planner import imagined_costs
from safemesa.phases.carl.fit import build_carl, fit_to_logs
from safemesa.phases.collection.compiled import collect_train
from safemesa.phases.collection.tasks import sample_train_tasks
from safemesa.phases.config import RunConfig


@dataclass(frozen=True)
class Outcome:
    """What one planner did from every state, each `[states, ...]`."""

    plan_cost: np.ndarray
    first_action: np.ndarray
    executed_return: np.ndarray
    violated: np.ndarray


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Flags."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planners", description=__doc__)
    parser.add_argument("--domain", default="navigation1")
    parser.add_argument("--budgets", default="mini", help="comma-separated")
    parser.add_argument("--states", type=int, default=20)
    parser.add_argument("--steps", type=int, default=10, help="steps that plans are executed for")
    parser.add_argument("--updates", type=int, default=5_000, help="updates of the model")
    parser.add_argument("--quick", action="store_true", help="tiny sizes; numbers mean nothing")
    return parser.parse_args(arguments)


def settings(flags: argparse.Namespace) -> RunConfig:
    """CARL-Offline at the `cpu` preset; the planner is exchanged later."""
    config = configure("carl_offline", flags.domain, "cpu")
    carl = replace(config.carl, log_updates=flags.updates)
    if not flags.quick:
        return replace(config, carl=carl)
    data = replace(config.data, train_tasks=2, train_transitions=200)
    tiny = replace(carl, hidden=(4,), weight_decay=(0.0, 0.0), horizon=2, log_updates=5)
    return replace(config, data=data, carl=tiny)


def source_states(
    domain: AbstractJaxDomain, logs: Sequence, tasks: Sequence[PyTree], count: int
) -> tuple[list[PyTree], np.ndarray]:
    """States of the training logs that do not violate, with the task of each."""
    rng = np.random.default_rng(0)
    chosen, states = [], []
    for index in range(count):
        number = index % len(tasks)
        columns = logs[number].columns
        starts = np.flatnonzero(np.asarray(columns["step"]) == 0)
        states.append(np.asarray(columns["obs"])[rng.choice(starts)])
        chosen.append(tasks[number])
    return chosen, np.stack(states)


@partial(jax.jit, static_argnums=(0, 1, 2))
def follow(
    carl: CARL,
    domain: AbstractJaxDomain,
    steps: int,
    model: ModelState,
    tasks: PyTree,
    states: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, ...]:
    """First plan's cost, first action, return and violation from each state."""

    def from_state(inputs: tuple) -> tuple:
        task, obs, own = inputs
        key_plan, key_judge, key_env = jax.random.split(own, 3)
        fresh = carl.no_plan()
        first, rest = carl.act(model, fresh, obs, cautious=True, key=key_plan)
        plan = jnp.concatenate([first[None], rest.actions[:-1]])
        judge = replace(carl.config, budget="paper")
        penalty = jnp.float32(judge.catastrophe_penalty)
        cost = imagined_costs(
            model.ensemble,
            model.scaling,
            obs,
            jnp.broadcast_to(plan[None], (100, *plan.shape)),
            judge,
            penalty,
            key=key_judge,
        )

        def step(carry: tuple, index: jax.Array) -> tuple:
            env, obs, planned, total, violated = carry
            act_key = jax.random.fold_in(key_plan, index)
            action, planned = carl.act(model, planned, obs, cautious=True, key=act_key)
            physical = domain.spaces.from_unit(action)
            env_key = jax.random.fold_in(key_env, index)
            env, result = domain.step(task, env, physical, key=env_key)
            violated = violated | (result.cost > 0.5)
            return (env, result.obs, planned, total + result.reward, violated), None

        start: tuple[PyTree, jax.Array, PlanState, jax.Array, jax.Array] = (
            domain.state_at(obs),
            obs,
            fresh,
            jnp.zeros(()),
            jnp.zeros((), bool),
        )
        indices = jnp.arange(1, steps + 1, dtype=jnp.int32)
        (_, _, _, total, violated), _ = jax.lax.scan(step, start, indices)
        return jnp.mean(cost), first, total, violated

    keys = jax.random.split(key, states.shape[0])
    return jax.lax.map(from_state, (tasks, states, keys))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    flags = parse(arguments)
    config, domain = settings(flags), find_domain(flags.domain)
    if not isinstance(domain, AbstractJaxDomain):
        raise SystemExit("planners are compared on navigation1, navigation2 and maze")
    logs = collect_train(domain, config.data, 0)
    (model,) = fit_to_logs([config], logs)
    tasks = sample_train_tasks(domain, config.data.train_tasks, 0)
    chosen, states = source_states(domain, logs.train, tasks, flags.states)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *chosen)

    def outcome(budget: str, seed: int) -> Outcome:
        one = replace(config, carl=replace(config.carl, budget=budget))
        carl, key = build_carl(one, domain.spaces), jax.random.key(seed)
        inputs = model, stacked, jnp.asarray(states), key
        return Outcome(*map(np.asarray, follow(carl, domain, flags.steps, *inputs)))

    full = outcome("paper", 0)
    named = {"paper_again": ("paper", 1)}
    named |= {budget: (budget, 2) for budget in flags.budgets.split(",")}
    for name, (budget, seed) in named.items():
        for measurement in compared(name, outcome(budget, seed), full):
            print(measurement.line(), flush=True)


def compared(name: str, given: Outcome, full: Outcome) -> list[Measurement]:
    """A planner beside the full one: median, least and most over the states."""
    excess = (given.plan_cost - full.plan_cost) / np.abs(full.plan_cost)
    distance = np.linalg.norm(given.first_action - full.first_action, axis=-1)
    ratio = given.executed_return / full.executed_return
    violated = given.violated.astype(float)
    return [
        summary(f"{name}_plan_cost_excess", excess.tolist(), "relative"),
        summary(f"{name}_first_action_distance", distance.tolist(), "action"),
        summary(f"{name}_executed_return_ratio", ratio.tolist(), "ratio"),
        Measurement(f"{name}_violations", violated.sum(), "states", len(violated), 0.0, 1.0),
        Measurement(
            f"{name}_mean_executed_return_ratio",
            float(given.executed_return.sum() / full.executed_return.sum()),
            "ratio",
            len(ratio),
            float(ratio.min()),
            float(ratio.max()),
        ),
    ]


if __name__ == "__main__":
    main()
