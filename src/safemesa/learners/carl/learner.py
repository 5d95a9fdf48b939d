"""CARL as a learner: `init`, `update` of the model, `act` by planning. Pure, for one run."""

from dataclasses import dataclass, replace

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from safemesa.core.types import Key, Metrics, PyTree
from safemesa.learners.carl.config import CARLConfig
from safemesa.learners.carl.ensemble import (
    DynamicsEnsemble,
    ModelBatch,
    Scaling,
    model_loss,
    unit_scaling,
)
from safemesa.learners.carl.planner import plan
from safemesa.learners.optimiser import Adam


class ModelState(eqx.Module):
    """Everything that CARL learns. Adam's moments persist over all fits."""

    ensemble: DynamicsEnsemble
    scaling: Scaling
    optimiser: PyTree


class PlanState(eqx.Module):
    """The rest of the last plan; its first action comes next. `age` counts since it was made."""

    actions: Float[Array, "horizon act"]
    age: Int[Array, ""]


@dataclass(frozen=True, kw_only=True, slots=True)
class CARL:
    """CARL (State); Zhang et al. 2020."""

    config: CARLConfig
    obs_size: int
    action_size: int

    @property
    def optimiser(self) -> Adam:
        """One rule for the whole model."""
        return Adam(learning_rate=self.config.learning_rate)

    def init(self, *, key: Key) -> ModelState:
        """Fresh networks."""
        sizes = (self.obs_size, self.action_size, self.config.hidden)
        ensemble = DynamicsEnsemble(self.config.networks, *sizes, key=key)
        scaling = unit_scaling(self.obs_size, self.action_size)
        return ModelState(ensemble, scaling, self.optimiser.init(ensemble))

    def update(self, state: ModelState, batch: ModelBatch) -> tuple[ModelState, Metrics]:
        """One Adam step on rows `[members, batch]`: every network has its own."""
        gradient, metrics = jax.grad(model_loss, has_aux=True)(
            state.ensemble, state.scaling, batch, self.config.weight_decay
        )
        ensemble, optimiser = self.optimiser.step(state.ensemble, gradient, state.optimiser)
        return replace(state, ensemble=ensemble, optimiser=optimiser), metrics

    def no_plan(self) -> PlanState:
        """The start of an episode."""
        empty = jnp.zeros((self.config.horizon, self.action_size))
        return PlanState(empty, jnp.zeros((), jnp.int32))

    def act(
        self,
        state: ModelState,
        planned: PlanState,
        obs: Float[Array, " obs"],
        *,
        cautious: bool | Bool[Array, ""],
        key: Key,
    ) -> tuple[Float[Array, " act"], PlanState]:
        """The next action in [-1, 1]: of a new plan, or of the last one while it is young.

        `cautious` switches the penalty of imagined violations on; pretraining in the training tasks
        plans for the return alone.
        """
        penalty = jnp.where(cautious, jnp.float32(self.config.catastrophe_penalty), 0.0)

        def replan() -> Array:
            return plan(
                state.ensemble, state.scaling, obs, planned.actions, self.config, penalty, key=key
            )

        every = self.config.planner.replan_every
        actions = jax.lax.cond(planned.age == 0, replan, lambda: planned.actions)
        rest = jnp.concatenate([actions[1:], jnp.zeros_like(actions[:1])])
        return actions[0], PlanState(rest, (planned.age + jnp.int32(1)) % jnp.int32(every))

    def updates_after(self, steps: Int[Array, ""]) -> Int[Array, ""]:
        """Model updates after an episode of Phase 3 of that many steps."""
        budget = self.config.planner
        wanted = jnp.ceil(budget.updates_per_step * steps.astype(jnp.float32)).astype(jnp.int32)
        return jnp.clip(wanted, budget.least_updates, budget.most_updates)
