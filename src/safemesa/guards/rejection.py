"""Drawing from the task policy until an action is safe."""

import jax
import jax.numpy as jnp

from safemesa.core.types import Key
from safemesa.guards.base import Decision, Situation


def first_safe(situation: Situation, limit: float, samples: int, *, key: Key) -> Decision:
    """The first of `samples` draws with `Q_risk <= limit`, else the least risky of them.

    The proposal is the first draw. Draws are independent, so the first safe one is distributed as
    the policy conditioned on being safe, exactly as a uniform choice among all safe ones is. What
    runs is the masked policy's own action, so that is what SAC remembers.
    """
    draws = jax.vmap(situation.propose)(jax.random.split(key, samples - 1))
    draws = jnp.concatenate([situation.proposed[None], draws])
    risk = jax.vmap(situation.critic, (None, 0))(situation.risk_obs, draws)
    safe = risk <= situation.tightened(limit)
    action = draws[jnp.where(jnp.any(safe), jnp.argmax(safe), jnp.argmin(risk))]
    return Decision(action, action, risk[0], ~safe[0])
