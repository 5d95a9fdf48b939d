"""CARL in Phase 3: plans every action, and refits its model after every episode."""

from dataclasses import dataclass, replace
from typing import NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from safemesa.core.types import Key, Metrics
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.replay import Replay, size
from safemesa.learners.carl.ensemble import MODEL_METRICS, disagreement, model_input
from safemesa.learners.carl.learner import CARL, ModelState, PlanState
from safemesa.phases.carl.fit import Rows, fit, joined, model_batch
from safemesa.phases.deployment.abstract_agent import AbstractAgent, Act, ViolationIndex, pack_logs


class WorldModel(NamedTuple):
    """What CARL is deployed with: a model, and the rows of the training tasks that made it.

    `gap` is where the new robot's rows begin (at least the number of `source` rows).
    """

    state: ModelState
    source: Float[np.ndarray, "source width"]
    gap: int


class CARLAgentState(eqx.Module):
    """The model, the rest of the plan, and where rows lie in the replay.

    `ended` is the length of the episode that the last step ended, and 0 within an episode.
    """

    model: ModelState
    plan: PlanState
    source: Int[Array, ""]
    target: Int[Array, ""]
    ended: Int[Array, ""]
    metrics: Metrics


@final
@dataclass(frozen=True, kw_only=True)
class CARLAgent(AbstractAgent):
    """CARL (State) under MESA's protocol: a violation ends an episode, caution from the start.

    The published code refits on all data after an episode. With a training log of millions of rows
    that is replaced by `CARL.updates_after` updates on batches that are half training data and half
    data of the new robot.
    """

    carl: CARL
    risk_discount: float

    @property
    def gamma_risk(self) -> float:
        """CARL has no critic; `risk_bias` is that of one that says 0, as without a guard."""
        return self.risk_discount

    @property
    def warmup_steps(self) -> int:
        """None: the model was pretrained."""
        return 0

    @property
    def learning_starts(self) -> int:
        return 0

    def first_rows(
        self, model: WorldModel, test_log: OfflineTasks | None
    ) -> Float[np.ndarray, "rows width"]:
        """The training data, and the test log where the arm may see it."""
        target = np.zeros((0, self.layout.width), np.float32)
        if test_log is not None and self.carl.config.use_test_log:
            target = pack_logs((test_log.only_log(),), self.spaces)
        return joined(model.source, target, model.gap)

    def initial(self, model: WorldModel, *, key: Key) -> CARLAgentState:
        """No plan yet."""
        del key
        return CARLAgentState(
            model=model.state,
            plan=self.carl.no_plan(),
            source=jnp.int32(len(model.source)),
            target=jnp.int32(model.gap),
            ended=jnp.zeros((), jnp.int32),
            metrics={name: jnp.zeros(()) for name in MODEL_METRICS},
        )

    def act(
        self,
        state: CARLAgentState,
        obs: Float[Array, " obs"],
        warmup: Bool[Array, ""],
        *,
        key: Key,
        limit_factor: Float[Array, ""] | None = None,
    ) -> Act:
        """The first action of a cautious plan; nothing guards it."""
        del warmup
        action, plan = self.carl.act(state.model, state.plan, obs, cautious=True, key=key)
        zero = jnp.zeros(())
        return Act(action, action, zero, zero, jnp.zeros((), bool), plan)

    def after(
        self, state: CARLAgentState, act: Act, length: Int[Array, ""], done: Bool[Array, ""]
    ) -> CARLAgentState:
        """Goes on with the plan; an episode's end drops it and calls for a fit."""
        plan = jax.tree.map(
            lambda fresh, rest: jnp.where(done, fresh, rest), self.carl.no_plan(), act.memory
        )
        return replace(state, plan=plan, ended=jnp.where(done, length, jnp.zeros_like(length)))

    def learn(
        self, state: CARLAgentState, replay: Replay, violations: ViolationIndex, *, key: Key
    ) -> tuple[CARLAgentState, Metrics]:
        """After an episode: fits the model; within one nothing. Reports the last fit."""
        del violations
        updates = jnp.where(state.ended > 0, self.carl.updates_after(state.ended), 0)
        rows = Rows(state.source, state.target, size(replay))
        model, metrics = fit(
            self.carl, self.layout, replay.rows, rows, state.model, key, jnp.int32(0), updates
        )
        last = jax.tree.map(
            lambda new, old: jnp.where(updates > 0, new, old), metrics, state.metrics
        )
        return replace(state, model=model, metrics=last), last

    def chunk_metrics(
        self, state: CARLAgentState, replay: Replay, violations: ViolationIndex, *, key: Key
    ) -> Metrics:
        """How far the networks disagree on rows of the new robot."""
        del violations
        drawn = jax.random.randint(
            key, (self.carl.config.batch,), state.target, size(replay), jnp.int32
        )
        x = model_input(model_batch(self.layout, replay.rows[drawn]))
        apart = disagreement(state.model.ensemble, state.model.scaling, x)
        return {"disagreement": jnp.mean(apart)}

    def deployed(self, state: CARLAgentState) -> ModelState:
        """The model as it is at the end."""
        return state.model
