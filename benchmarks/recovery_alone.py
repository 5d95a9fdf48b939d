"""How long a pole stays up with the recovery policy alone at the wheel.

    python -m benchmarks.recovery_alone runs/grid/cartpole/multitask-1000 ...

Each run's risk models, adapted and deployed, from the same 40 states of the test robot, for 100
steps: the share of violations of the recovery policy, of the action of least risk (of 21), and of a
linear controller, which needs no learning and tells what is possible. Needs `mujoco`.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from safemesa.domains.cartpole import CARTPOLE
from safemesa.phases.storage.artefacts import RiskModel, load_risk_model

STARTS, STEPS, ACTIONS = 40, 100, 21
SPREAD = (0.5, 0.25, 1.0, 0.6)
"""Starts are uniform within: metres, radians, and their rates."""
GAINS = (0.3, 8.0, 0.6, 1.5)
"""Of the linear controller, clipped at the limits of the push."""

Policy = Callable[[np.ndarray], np.ndarray]
"""An observation to a physical action."""


def violations(policy: Policy, starts: int = STARTS) -> float:
    """Share of starts from which a policy violates within `STEPS`."""
    task = CARTPOLE.sample_task(np.random.default_rng(0), "test")
    env = cast(Any, CARTPOLE.make_env(task, terminate_on_violation=True))
    count = 0
    for first in np.random.default_rng(0).uniform(-1, 1, (starts, 4)) * SPREAD:
        env.observe_again(first)
        obs = first
        for _ in range(STEPS):
            obs, *_, info = env.step(policy(obs))
            if info["cost"] > 0.5:
                count += 1
                break
    env.close()
    return count / starts


def linear(obs: np.ndarray) -> np.ndarray:
    """Pushes towards where the pole falls."""
    (limit,) = CARTPOLE.spaces.action_high
    return np.clip([np.dot(GAINS, obs)], -limit, limit)


def policies(model: RiskModel) -> dict[str, Policy]:
    """The recovery policy, and the action of least risk on a grid."""
    (limit,) = CARTPOLE.spaces.action_high
    grid = jnp.linspace(-1.0, 1.0, ACTIONS, dtype=jnp.float32)[:, None]

    @jax.jit
    def recovery(obs: jax.Array) -> jax.Array:
        return model.recovery(model.normaliser(obs))

    @jax.jit
    def least(obs: jax.Array) -> jax.Array:
        risks = jax.vmap(lambda action: model.critic(model.normaliser(obs), action))(grid)
        return grid[jnp.argmin(risks)]

    def physical(act: Callable[[jax.Array], jax.Array]) -> Policy:
        return lambda obs: limit * np.asarray(act(jnp.asarray(obs, jnp.float32)), np.float64)

    return {"recovery": physical(recovery), "least_risk": physical(least)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    flags = parser.parse_args(arguments)
    print(json.dumps({"controller": "linear", "violated": violations(linear)}))
    for run in flags.runs:
        for name in ("risk_model", "deployed_risk_model"):
            model, config, _ = load_risk_model(run / "artefacts" / name)
            shares = {key: violations(policy) for key, policy in policies(model).items()}
            settings = {"arm": config.arm, "gamma_risk": config.risk.gamma_risk}
            settings |= {"next_action": config.data.next_action, "seed": config.seed}
            print(json.dumps({"risk_model": name, **settings, "violated": shares}), flush=True)


if __name__ == "__main__":
    main()
