"""What is measured of safemesa: the product's own compiled functions, many steps per call."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from safemesa.core.spaces import Spaces
from safemesa.datasets.offline_tasks import OfflineTasks, TaskLog
from safemesa.datasets.replay import append, extend, make_replay
from safemesa.domains.navigation import NAVIGATION1, NAVIGATION2
from safemesa.experiments.arms import configure
from safemesa.learners.config import RiskConfig, SACConfig
from safemesa.learners.meta.settings import MAMLSettings
from safemesa.networks.normaliser import identity_normaliser
from safemesa.phases.build import fresh_risk_networks, prior_learners, task_learner_key
from safemesa.phases.carl.fit import build_carl, fresh_model
from safemesa.phases.config import RunConfig, with_names
from safemesa.phases.deployment.guarded_sac import Agent, AgentState, ViolationIndex, build_agent
from safemesa.phases.log_tables import build_train_tables
from safemesa.phases.meta_train import MetaTrainState, meta_train_chunk

Run = Callable[[], None]


@dataclass(frozen=True)
class Size:
    """Sizes of the benchmark problem."""

    obs: int = 20
    action: int = 6
    hidden: int = 256
    batch: int = 256
    replay: int = 20_000

    @property
    def spaces(self) -> Spaces:
        """Signals without meaning."""
        return Spaces(
            obs_names=tuple(f"o{i}" for i in range(self.obs)),
            action_names=tuple(f"a{i}" for i in range(self.action)),
            action_low=(-1.0,) * self.action,
            action_high=(1.0,) * self.action,
            horizon=1000,
        )

    @property
    def products(self) -> tuple[int, int, int, int]:
        """What the floor needs."""
        return (self.obs, self.action, self.hidden, self.batch)


def _config(size: Size) -> RunConfig:
    hidden = (size.hidden, size.hidden)
    return RunConfig(
        risk=RiskConfig(critics=2, hidden=hidden),
        sac=SACConfig(hidden=hidden, batch=size.batch),
        meta=MAMLSettings(support_batch=size.batch, query_batch=size.batch),
    )


def _agent_state(size: Size, config: RunConfig) -> tuple[Agent, AgentState]:
    agent = build_agent(config, size.spaces)
    critic, recovery = fresh_risk_networks(config, size.spaces)
    risk = agent.risk.init(critic, recovery)
    sac = agent.sac.init(key=task_learner_key(config))
    normaliser = identity_normaliser(size.obs)
    return agent, AgentState(sac, risk, agent.guard.init(), normaliser)


def online_step(size: Size, steps: int, *, safety: bool = True, guard: str = "recovery_rl") -> Run:
    """Act, store, update SAC, critic and recovery policy; without `safety`, SAC's update alone."""
    config = with_names(_config(size), guard=guard if safety else "none")
    if config.guard == "takeover":  # no Phase 2 finds its limit here; the time is that of any
        limited = replace(config.guard_settings, risk_limit=0.1)
        config = replace(config, guard_settings=limited)
    agent, state = _agent_state(size, config)
    rows = jax.random.normal(jax.random.key(1), (size.replay // 2, agent.layout.width))
    empty = make_replay(capacity=size.replay, width=agent.layout.width, protected=100)
    replay = extend(empty, rows)
    violations = ViolationIndex(jnp.zeros(size.replay, jnp.int32), jnp.zeros((), jnp.int32))
    root = jax.random.key(2)

    @partial(jax.jit, donate_argnums=0)
    def many(carry: tuple) -> tuple:
        def body(index: jax.Array, carry: tuple) -> tuple:
            state, replay, obs = carry
            key_act, key_learn = jax.random.split(jax.random.fold_in(root, index))
            if safety:
                act = agent.act(state, obs, jnp.zeros((), bool), key=key_act)
                row = {
                    "obs": obs,
                    "proposed_action": act.proposed,
                    "action": act.action,
                    "next_obs": obs,
                    "reward": act.risk,
                    "cost": jnp.zeros(()),
                    "terminated": jnp.zeros(()),
                }
                replay = append(replay, agent.layout.pack(row))
                obs = 0.99 * obs + 1e-3 * jnp.sum(act.action)
            state, _ = agent.learn(state, replay, violations, key=key_learn)
            return state, replay, obs

        return jax.lax.fori_loop(0, steps, body, carry)

    box = [jax.tree.map(jnp.copy, (state, replay, jnp.ones(size.obs)))]

    def run() -> None:
        box[0] = jax.block_until_ready(many(box[0]))

    return run


def _random_logs(size: Size, tasks: int, rows: int) -> OfflineTasks:
    rng = np.random.default_rng(0)

    def log(task: int) -> TaskLog:
        last = np.arange(rows) % 10 == 9
        columns = {
            "obs": rng.normal(size=(rows, size.obs)).astype(np.float32),
            "next_obs": rng.normal(size=(rows, size.obs)).astype(np.float32),
            "action": rng.uniform(-1, 1, (rows, size.action)).astype(np.float32),
            "reward": np.zeros(rows, np.float32),
            "cost": (last & (rng.random(rows) < 0.5)).astype(np.float32),
            "episode": (np.arange(rows) // 10).astype(np.int32),
            "step": (np.arange(rows) % 10).astype(np.int32),
        }
        columns["terminated"] = columns["cost"] > 0.5
        columns["truncated"] = last & ~columns["terminated"]
        return TaskLog(name=f"train-{task}", role="train", columns=columns)

    logs = tuple(log(task) for task in range(tasks))
    return OfflineTasks(domain="benchmark", spaces=size.spaces, train=logs)


def meta_iterations(
    size: Size, steps: int, *, tasks: int = 5, guard: str = "recovery_rl", loss: str = "mse"
) -> Run:
    """Second-order MAML iterations as Phase 1 runs them: one critic and its recovery policy."""
    risk = RiskConfig(hidden=(size.hidden, size.hidden), loss=loss)
    config = with_names(replace(_config(size), risk=risk), guard=guard)
    learners = prior_learners(config)
    tables = build_train_tables(
        _random_logs(size, tasks, 2_000), identity_normaliser(size.obs), config.sampling, 0
    )
    critic, recovery = fresh_risk_networks(config, size.spaces)
    state = MetaTrainState(learners.meta.init(critic), learners.risk.init_recovery(recovery))
    root = jax.random.key(3)
    chunk = jax.jit(partial(meta_train_chunk, learners), donate_argnums=2)
    box = [jax.tree.map(jnp.copy, state)]

    def run() -> None:
        box[0], _ = jax.block_until_ready(
            chunk(tables, None, box[0], root, jnp.int32(0), jnp.int32(steps))
        )

    return run


def paper_iterations(steps: int) -> Run:
    """Phase 1 on logs of Navigation's sizes at the paper's network and batch sizes."""
    size = Size(obs=2, action=2)
    return meta_iterations(size, steps)


def carl_plans(count: int) -> Run:
    """Plans of CARL's planner `mini` on Navigation, at the horizon and networks of its presets."""
    config = configure("carl_offline", "navigation1", "cpu")
    carl = build_carl(config, NAVIGATION1.spaces)
    model = fresh_model(config, NAVIGATION1.spaces)

    @jax.jit
    def many(key: jax.Array) -> jax.Array:
        def body(index: jax.Array, obs: jax.Array) -> jax.Array:
            own = jax.random.fold_in(key, index)
            action, _ = carl.act(model, carl.no_plan(), obs, cautious=True, key=own)
            return obs + action

        return jax.lax.fori_loop(0, count, body, jnp.asarray([-50.0, 0.0]))

    def run() -> None:
        jax.block_until_ready(many(jax.random.key(0)))

    return run


def navigation_steps(environments: int, steps: int) -> Run:
    """Environment steps of Navigation 2 under random actions, without learning."""
    task = NAVIGATION2.sample_task(np.random.default_rng(0), "test")

    @jax.jit
    def many(key: jax.Array) -> jax.Array:
        def one(key: jax.Array) -> jax.Array:
            state, _ = NAVIGATION2.reset(task, key=key)

            def body(state: tuple, index: jax.Array) -> tuple:
                key_action, key_step = jax.random.split(jax.random.fold_in(key, index))
                action = jax.random.uniform(key_action, (2,), jnp.float32, -1.0, 1.0)
                state, result = NAVIGATION2.step(task, state, action, key=key_step)
                return state, result.cost

            costs = jax.lax.scan(body, state, jnp.arange(steps, dtype=jnp.int32))[1]
            return jnp.sum(costs)

        return jax.vmap(one)(jax.random.split(key, environments))

    def run() -> None:
        jax.block_until_ready(many(jax.random.key(0)))

    return run
