"""Was a robot doomed when recovery took over? Other actions, tried from where recovery failed."""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from jaxtyping import Float

from safemesa.core.costs import binary_cost
from safemesa.core.streams import Stream, generator
from safemesa.core.types import PyTree
from safemesa.domains.base import AbstractDomain
from safemesa.domains.host import Environment
from safemesa.domains.mujoco_domain import AbstractMujocoDomain
from safemesa.experiments.headroom.critic_scores import spans
from safemesa.experiments.measures.run_contents import intervened

EARLIER = (0, 5)
"""Steps before the takeover from which other actions are tried too."""

TAKEOVERS = 30
"""Failed takeovers per run that are looked at, drawn without replacement."""

SEQUENCES = 40
"""Random sequences of actions per takeover."""

HOLD = 5
"""Steps for which an action of every other sequence is held; the others hold one throughout."""


def rescues(
    domain: AbstractDomain,
    task: PyTree,
    columns: Mapping[str, np.ndarray],
    steps: int,
    seed: int = 0,
) -> dict[str, float | int | None]:
    """From how many failed takeovers some random actions would not have violated within `steps`.

    Args:
        domain: Robots of MuJoCo that observe their state; all values are None for others.
        task: The run's task.
        columns: The run's replay (`analysis.replay_columns`).
        steps: How long no violation may come.
        seed: Of the drawn takeovers and actions.

    `rescued_k` is the share of takeovers from which at least one of `SEQUENCES` sequences is safe
    when it starts k steps before the takeover. A lower bound: random actions are no search.
    """
    unknown = {"takeovers_tried": 0, **{f"rescued_{early}": None for early in EARLIER}}
    starts, ends = spans(intervened(columns), columns["episode"])
    failed = starts[columns["cost"][ends] > 0.5]
    if not isinstance(domain, AbstractMujocoDomain) or not len(failed):
        return unknown
    rng = generator(seed, Stream.HEADROOM_TAKEOVERS)
    tried = rng.permutation(failed)[:TAKEOVERS]
    env = domain.make_env(task, terminate_on_violation=True)
    # Not beyond the start of the episode.
    rows = {early: tried - np.minimum(columns["step"][tried], early) for early in EARLIER}
    # The type of the environment is known where its simulator is installed.
    again = cast(Any, env).observe_again
    if not all(again(obs) for chosen in rows.values() for obs in columns["obs"][chosen]):
        env.close()
        return unknown
    shares = {}
    for early, chosen in rows.items():
        safe = [_any_safe(env, obs, steps, rng) for obs in columns["obs"][chosen]]
        shares[f"rescued_{early}"] = float(np.mean(safe))
    env.close()
    return {"takeovers_tried": len(tried), **shares}


def _any_safe(
    env: Environment, obs: Float[np.ndarray, " obs"], steps: int, rng: np.random.Generator
) -> bool:
    space = cast(Any, env.action_space)
    for index in range(SEQUENCES):
        hold = HOLD if index % 2 else steps
        drawn = rng.uniform(space.low, space.high, (-(-steps // hold), *space.shape))
        if _is_safe(env, obs, np.repeat(drawn, hold, axis=0)[:steps]):
            return True
    return False


def _is_safe(
    env: Environment, obs: Float[np.ndarray, " obs"], actions: Float[np.ndarray, "steps act"]
) -> bool:
    cast(Any, env).observe_again(obs)
    costs = (env.step(action)[4].get("cost") for action in actions)
    return not any(binary_cost(cost, f"info['cost'] of {env}") == 1.0 for cost in costs)
