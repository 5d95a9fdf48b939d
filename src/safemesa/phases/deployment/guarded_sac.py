"""SAC behind a guard: `act` and `learn`, the same for compiled and for host environments."""

from dataclasses import dataclass, field, replace
from typing import final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from safemesa.core.errors import ConfigurationError
from safemesa.core.spaces import Spaces
from safemesa.core.streams import Stream, substream
from safemesa.core.types import Key, Metrics, PyTree, RiskBatch, TaskBatch
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.replay import Replay, sample_positions, size
from safemesa.guards.base import AbstractGuard, Situation
from safemesa.learners.config import RehearsalConfig, SamplingConfig
from safemesa.learners.risk import RiskLearner, RiskState
from safemesa.learners.sac import SAC, SACState
from safemesa.networks.normaliser import Normaliser
from safemesa.networks.policies import TanhGaussianPolicy
from safemesa.phases.build import make_guard, risk_learner
from safemesa.phases.config import RunConfig
from safemesa.phases.deployment.abstract_agent import (
    AbstractAgent as AbstractAgent,
    Act as Act,
    ViolationIndex as ViolationIndex,
    pack_logs,
    replay_layout as replay_layout,
)
from safemesa.phases.log_tables import batch_of_rows, chosen_rows
from safemesa.phases.rehearsal import rehearsal_layout
from safemesa.phases.storage.artefacts import RiskModel
from safemesa.phases.takeover_limit import fleet_level, recovery_risk


class Forgotten(eqx.Module):
    """The oldest rows of the replay, and of its violations, that the safety critic draws no more.

    Where the replay is full and begins again, what is written to their places is not drawn either.
    """

    rows: Int[Array, ""]
    violations: Int[Array, ""]


class AgentState(eqx.Module):
    """Everything that Phase 3 learns; normaliser and rehearsal are the risk model's and fixed."""

    sac: SACState
    risk: RiskState
    guard: PyTree
    normaliser: Normaliser
    rehearsal: Float[Array, "rows width"] | None = None
    memory: PyTree = ()
    """The recovery's."""
    forgotten: Forgotten | None = None
    """Where the safety critic may forget what the robot did before it changed."""


@final
@dataclass(frozen=True, kw_only=True)
class Agent(AbstractAgent):
    """The task learner behind a guard."""

    sac: SAC
    risk: RiskLearner
    guard: AbstractGuard
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    rehearsal: RehearsalConfig = field(default_factory=RehearsalConfig)
    """Which rows of the fleet, that the risk model carries, safety batches hold."""
    forgets: bool = False
    """Whether what the robot did before a change can be forgotten."""

    @property
    def gamma_risk(self) -> float:
        return self.risk.config.gamma_risk

    @property
    def warmup_steps(self) -> int:
        return self.sac.config.warmup_steps

    @property
    def learning_starts(self) -> int:
        """Online steps before the first update: a full batch.

        Learning goes on through a longer warm-up, as in the published code: its random actions
        show the guard's errors as well as any.
        """
        return self.sac.config.batch

    def first_rows(
        self, model: RiskModel, test_log: OfflineTasks | None
    ) -> Float[np.ndarray, "rows width"]:
        """The test log, where the guard asks for risks; its proposed action is the logged one."""
        del model
        if test_log is None or not self.guard.uses_risk:
            return np.zeros((0, self.layout.width), np.float32)
        log = test_log.only_log()
        return pack_logs((log,), self.spaces)[chosen_rows(log, self.sampling)]

    def initial(self, model: RiskModel, *, key: Key) -> AgentState:
        """Fresh SAC networks and the adapted risk model."""
        return AgentState(
            self.sac.init(key=key),
            self.risk.init(model.critic, model.recovery),
            self._first_guard_state(model),
            model.normaliser,
            model.rehearsal if self.rehearsal.rows else None,
            model.recovery.begin(),
            Forgotten(jnp.int32(0), jnp.int32(0)) if self.forgets else None,
        )

    def adapted_again(self, state: AgentState, model: RiskModel) -> AgentState:
        """The state with a risk model that was adapted to the changed robot.

        Whoever learns the task goes on; an episode that is under way goes on with a recovery that
        remembers nothing of it.
        """
        return replace(
            state,
            risk=self.risk.init(model.critic, model.recovery),
            guard=self._first_guard_state(model),
            memory=model.recovery.begin(),
        )

    def _first_guard_state(self, model: RiskModel) -> PyTree:
        if model.limit is None:
            return self.guard.init()
        share = self.guard.calm_share
        level = 1.0 if share is None else fleet_level(model, self.spaces, share)
        return self.guard.begin(model.limit, jnp.asarray(level, jnp.float32))

    def task_obs(self, state: AgentState, obs: Float[Array, "... obs"]) -> Float[Array, "... obs"]:
        """What the task policy sees: raw or normalised, per domain."""
        return state.normaliser(obs) if self.sac.config.normalise_obs else obs

    def act(
        self,
        state: AgentState,
        obs: Float[Array, " obs"],
        warmup: Bool[Array, ""],
        *,
        key: Key,
        limit_factor: Float[Array, ""] | None = None,
    ) -> Act:
        """Draws the task policy's action (uniform in the warm-up) and lets the guard decide."""
        key_task, key_uniform, key_guard = jax.random.split(key, 3)
        task_obs, risk_obs = self.task_obs(state, obs), state.normaliser(obs)
        critic = state.risk.critic

        def draw(key_policy: Key, key_warmup: Key) -> Float[Array, " act"]:
            uniform = jax.random.uniform(
                key_warmup, (self.spaces.action_size,), jnp.float32, minval=-1.0, maxval=1.0
            )
            return jnp.where(warmup, uniform, state.sac.policy.sample(task_obs, key=key_policy)[0])

        situation = Situation(
            critic=critic,
            recovery=state.risk.recovery.policy,
            risk_obs=risk_obs,
            proposed=draw(key_task, key_uniform),
            propose=lambda key_draw: draw(*jax.random.split(key_draw)),
            memory=state.memory,
            limit_factor=limit_factor,
        )
        decision = self.guard.select_action(state.guard, situation, key=key_guard)
        asked, memory = self.guard.uses_risk, decision.memory
        return Act(
            proposed=decision.task_action,
            action=decision.action,
            risk=decision.risk,
            executed_risk=critic(risk_obs, decision.action) if asked else jnp.zeros(()),
            intervened=decision.intervened,
            memory=state.risk.recovery.policy.begin() if memory is None else memory,
        )

    def after(
        self, state: AgentState, act: Act, length: Int[Array, ""], done: Bool[Array, ""]
    ) -> AgentState:
        """The recovery's memory, which ends with the episode."""
        del length
        fresh = state.risk.recovery.policy.begin()
        memory = jax.tree.map(lambda new, old: jnp.where(done, new, old), fresh, act.memory)
        return replace(state, memory=memory)

    def learn(
        self, state: AgentState, replay: Replay, violations: ViolationIndex, *, key: Key
    ) -> tuple[AgentState, Metrics]:
        """One update of SAC and, where the guard uses it, of critic and recovery policy."""
        key_rows, key_sac, key_risk_rows, key_next = jax.random.split(key, 4)
        task_rows = jax.random.randint(
            key_rows, (self.sac.config.batch,), replay.protected, size(replay), jnp.int32
        )
        columns = self.layout.unpack(replay.rows[task_rows])
        risk_obs = state.normaliser(columns["obs"])
        batch = TaskBatch(
            obs=self.task_obs(state, columns["obs"]),
            action=columns["proposed_action"],
            reward=columns["reward"],
            next_obs=self.task_obs(state, columns["next_obs"]),
            terminated=columns["terminated"],
        )
        guard, critic = self.guard, state.risk.critic
        sac, metrics = self.sac.update(
            state.sac,
            batch,
            key=key_sac,
            actor_term=lambda _, action: guard.actor_term(state.guard, critic, risk_obs, action),
            reward_term=lambda _, action: guard.reward_term(
                state.guard, critic, risk_obs, action, columns["cost"]
            ),
        )
        if not guard.uses_risk:
            return replace(state, sac=sac), metrics
        drawn, balanced = self._risk_rows(replay, violations, key_risk_rows, state.forgotten)
        risk_batch = self._risk_batch(state, sac.policy, replay.rows[balanced], key_next)
        # Multipliers answer to the policy, not to how many violations a batch is given.
        dual_batch = risk_batch
        if self.sampling.violation_fraction is not None:
            key_dual = substream(key, Stream.UNBALANCED_ACTIONS)
            dual_batch = self._risk_batch(state, sac.policy, replay.rows[drawn], key_dual)
        risk, guard_state = state.risk, state.guard
        if self.config.learn_risk:
            fleet = self._fleet_rows(state, substream(key, Stream.FLEET_ROWS))
            if fleet is not None:
                key_fleet = substream(key, Stream.FLEET_ACTIONS)
                online = size(replay)
                if state.forgotten is not None:
                    online = online - state.forgotten.rows
                risk_batch = self._with_fleet(risk_batch, fleet, online, key=key_fleet)
            risk, risk_metrics = self.risk.update(risk, risk_batch, guard.risk_term)
            metrics |= risk_metrics
            if fleet is not None:
                known = rehearsal_layout(self.spaces).unpack(fleet)
                calm_risk = recovery_risk(risk.critic, risk.recovery.policy, known["obs"])
                guard_state = guard.follow(guard_state, calm_risk, known["calm"])
        duals, dual_metrics = guard.update(guard_state, risk.critic, dual_batch)
        return replace(state, sac=sac, risk=risk, guard=duals), metrics | dual_metrics

    def chunk_metrics(
        self, state: AgentState, replay: Replay, violations: ViolationIndex, *, key: Key
    ) -> Metrics:
        """The critic's logits of violations, where the guard uses it."""
        if not self.guard.uses_risk:
            return {}
        logit = self.median_violation_logit(state, replay, violations, key=key)
        return {"median_violation_logit": logit}

    def deployed(self, state: AgentState) -> RiskModel | None:
        """The risk model as it is at the end, where the guard used it."""
        if not self.guard.uses_risk:
            return None
        return RiskModel(
            state.risk.critic,
            state.risk.recovery.policy,
            state.normaliser,
            self.guard.limit_of(state.guard),
            state.rehearsal,
        )

    def median_violation_logit(
        self, state: AgentState, replay: Replay, violations: ViolationIndex, *, key: Key
    ) -> Float[Array, ""]:
        """Median logit of violating rows; 0 while there are none.

        A sigmoid with a squared error can die: logits below about -10 on violations mean that the
        critic has stopped learning.
        """
        drawn = jax.random.randint(
            key, (self.sac.config.batch,), 0, jnp.maximum(violations.count, 1), jnp.int32
        )
        columns = self.layout.unpack(replay.rows[violations.positions[drawn]])
        logits = jax.vmap(state.risk.critic.logits)(
            state.normaliser(columns["obs"]), columns["action"]
        )
        return jnp.where(violations.count > 0, jnp.median(jnp.max(logits, axis=-1)), 0.0)

    def _risk_rows(
        self,
        replay: Replay,
        violations: ViolationIndex,
        key: Key,
        forgotten: Forgotten | None = None,
    ) -> tuple[Int[Array, " batch"], Int[Array, " batch"]]:
        """Rows as they come, and those for the safety critic: with a share of violations, if asked.

        A violation whose row was overwritten is drawn no more: the row as it came stays.
        """
        batch, fraction = self.sac.config.batch, self.sampling.violation_fraction
        key_any, key_violation = jax.random.split(key)
        first_violation: Int[Array, ""] | int = 0
        if forgotten is not None:
            least = 0 if self.config.keep_test_log else replay.protected
            first = jnp.maximum(forgotten.rows, least)
            rows = jax.random.randint(key_any, (batch,), first, size(replay), jnp.int32)
            first_violation = forgotten.violations
        elif self.config.keep_test_log:
            rows = sample_positions(replay, batch, key=key_any)
        else:
            rows = jax.random.randint(key_any, (batch,), replay.protected, size(replay), jnp.int32)
        if fraction is None:
            return rows, rows
        drawn = jax.random.randint(
            key_violation,
            (batch,),
            first_violation,
            jnp.maximum(violations.count, first_violation + 1),
            jnp.int32,
        )
        wanted = (jnp.arange(batch) < round(fraction * batch)) & (
            violations.count > first_violation
        )
        found = violations.positions[drawn]
        wanted &= self.layout.unpack(replay.rows[found])["cost"] > 0.5
        return rows, jnp.where(wanted, found, rows)

    def _risk_batch(
        self,
        state: AgentState,
        policy: TanhGaussianPolicy,
        rows: Float[Array, "batch width"],
        key: Key,
    ) -> RiskBatch:
        """Bootstraps with the task policy, whose risk the critic follows in Phase 3."""
        columns = self.layout.unpack(rows)
        normalised = {
            name: state.normaliser(columns[name]) if name in ("obs", "next_obs") else columns[name]
            for name in ("obs", "action", "cost", "next_obs", "terminated")
        }
        noise_next, noise_now = jax.random.normal(
            key, (2, *normalised["action"].shape), jnp.float32
        )

        def actions_at(
            obs: Float[Array, "batch obs"], noise: Float[Array, "batch act"]
        ) -> Float[Array, "batch act"]:
            squashed = jax.vmap(lambda one, z: policy.squash(policy.distribution(one), z)[0])
            return squashed(self.task_obs(state, obs), noise)

        return RiskBatch(
            **normalised,
            next_action=actions_at(columns["next_obs"], noise_next),
            policy_action=actions_at(columns["obs"], noise_now),
        )

    def _fleet_rows(self, state: AgentState, key: Key) -> Float[Array, "batch width"] | None:
        """As many rows of the fleet as a safety batch has; None where the model carries none."""
        if state.rehearsal is None:
            return None
        count, rows = state.rehearsal.shape[0], self.sac.config.batch
        return state.rehearsal[jax.random.randint(key, (rows,), 0, count, jnp.int32)]

    def _with_fleet(
        self,
        batch: RiskBatch,
        fleet: Float[Array, "batch width"],
        online: Int[Array, ""],
        *,
        key: Key,
    ) -> RiskBatch:
        """The batch with rows of the fleet in it: fewer, the more `online` rows there are.

        They are learned as in Phases 1 and 2, with the logged next action or a random one. Where
        everything is taken over, the task policy proposes anything, as nothing of it ever runs; a
        critic that feared its stumbles in the fleet's states, too, feared ever more, took over all
        the more, and the recovery was forgotten.
        """
        key_next, key_whose = jax.random.split(key)
        others = batch_of_rows(rehearsal_layout(self.spaces), fleet, key=key_next)
        own_rows = online.astype(jnp.float32)
        share = own_rows / (own_rows + self.rehearsal.worth)
        is_own = jax.random.uniform(key_whose, batch.cost.shape) < share

        def choose(own: Array, other: Array) -> Array:
            return jnp.where(is_own.reshape(-1, *(1,) * (own.ndim - 1)), own, other)

        return jax.tree.map(choose, batch, others)


def build_agent(config: RunConfig, spaces: Spaces) -> Agent:
    """SAC behind a guard; arms that differ in Phase 1 alone share it, compiled.

    Raises:
        ConfigurationError: the configuration is CARL's (see `agent_kinds.make_agent`), a name is
            unknown, or a guard has no critic whose normaliser the task learner is to use.
    """
    if config.agent != "sac":
        raise ConfigurationError(
            f"the agent {config.agent!r} is no SAC behind a guard. Run its arm as a whole: "
            "`safemesa run`, or `run_arm` in Python."
        )
    guard = make_guard(config)
    if config.sac.normalise_obs and not guard.uses_risk:
        raise ConfigurationError(
            f"sac.normalise-obs uses the normaliser of the risk model, which the guard "
            f"{config.guard!r} has not: the task learner of {config.arm} would see something else "
            "than that of the other arms. Leave it out."
        )
    return Agent(
        config=config.deploy,
        spaces=spaces,
        sac=SAC(config=config.sac, obs_size=spaces.obs_size, action_size=spaces.action_size),
        risk=risk_learner(config, config.deploy.target_rate, config.deploy.learning_rate),
        guard=guard,
        sampling=config.sampling,
        rehearsal=config.rehearsal,
        forgets=config.monitor.enabled and config.monitor.forget,
    )
