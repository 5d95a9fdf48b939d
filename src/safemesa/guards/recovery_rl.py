"""Recovery RL: the recovery policy takes over where the task policy's action is too risky."""

from dataclasses import dataclass, field
from typing import final

import jax
import jax.numpy as jnp

from safemesa.core.types import Key, PyTree
from safemesa.guards.base import AbstractGuard, Decision, Situation
from safemesa.guards.settings import RecoveryRLSettings


@final
@dataclass(frozen=True, kw_only=True)
class RecoveryRL(AbstractGuard):
    """Thananjeyan et al. 2021, section 4; MESA section 2.3.

    The task learner's losses are unchanged; it remembers its own proposal in place of the recovery
    action that ran ("action relabelling").

    Differences from the published code: the recovery policy is deterministic with a fixed
    exploration noise, there it is a Gaussian with a learned standard deviation; one critic by
    default (`risk.critics`), there the maximum of two.
    """

    settings: RecoveryRLSettings = field(default_factory=RecoveryRLSettings)

    def select_action(self, state: PyTree, situation: Situation, *, key: Key) -> Decision:
        """The proposal if `Q_risk <= risk_limit`, otherwise a noisy recovery action."""
        del state
        proposed = situation.proposed
        risk = situation.critic(situation.risk_obs, proposed)
        limit = situation.tightened(self.settings.risk_limit)
        intervened = ~(risk <= limit)  # also where the risk is not a number
        noise = self.settings.recovery_noise * jax.random.normal(key, proposed.shape)
        escape, memory = situation.recover()
        escape = jnp.clip(escape + noise, -1.0, 1.0)
        action = jnp.where(intervened, escape, proposed)
        kept = situation.remembered(memory, intervened)
        return Decision(action, proposed, risk, intervened, kept)
