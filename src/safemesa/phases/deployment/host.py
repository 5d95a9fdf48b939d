"""Phase 3 around Gymnasium environments: the same `act` and `learn`, one step at a time.

One compiled call per step stores the last transition, learns from it and chooses the next action;
the environment steps between two calls. Several seeds share the call and step together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from safemesa.core.costs import binary_cost, known_number
from safemesa.core.errors import ConfigurationError
from safemesa.core.spaces import Spaces
from safemesa.core.streams import Stream, simulator_seed, substream
from safemesa.core.types import Metrics
from safemesa.domains.base import Step
from safemesa.domains.host import AbstractHostDomain, Environment
from safemesa.phases.config import RunConfig
from safemesa.phases.deployment.abstract_agent import AbstractAgent, Act
from safemesa.phases.deployment.deploy_state import (
    Chunk,
    DeployState,
    EpisodeRecord,
    OnChunk,
    Roots,
    act_at,
    observe,
    where,
)
from safemesa.phases.deployment.timeline import Timeline, changeable
from safemesa.phases.deployment.upkeep import Upkeep
from safemesa.phases.seeds import SeedAxis


@dataclass
class HostEnvironment:
    """The environment of one run, which starts its own next episode."""

    env: Environment
    run_seed: int
    spaces: Spaces
    stream: Stream = Stream.SIMULATOR
    timeline: Timeline | None = None
    """The tasks of a robot that changes, which begins with the first; None: it never does."""
    taken: int = 0
    """Steps of the run so far, by which the timeline goes."""
    present: int = 0
    """Which task of the timeline the environment has."""

    def reset(self, episode: int) -> np.ndarray:
        """The first observation of an episode."""
        self._change()
        obs, _ = self.env.reset(seed=simulator_seed(self.run_seed, self.stream, episode))
        return np.asarray(obs, np.float32)

    def step(
        self, action: np.ndarray, episode: int, goes_on: bool = True
    ) -> tuple[Step, np.ndarray]:
        """Applies an action in [-1, 1]; returns what came of it and the observation to act on.

        Where the episode ends and another one `goes_on` from there, that is its first observation.

        Raises:
            ConfigurationError: the environment does not report costs of 0 or 1, or reports an
                observation or reward that is not finite.
        """
        self._change()
        self.taken += 1
        obs, reward, terminated, truncated, info = self.env.step(self.spaces.from_unit(action))
        where = f"of {self.env} at a step of episode {episode}"
        cost = binary_cost(info.get("cost"), f"info['cost'] {where}")
        reward = known_number(reward, f"the reward {where}", "a finite number")
        seen = np.asarray(obs, np.float32)
        if not np.isfinite(seen).all():
            raise ConfigurationError(
                f"the observation {where} is {seen.tolist()}; expected finite numbers. Mend the "
                "environment."
            )
        step = _host_result(
            seen, reward, cost, bool(terminated), bool(truncated), bool(info.get("success", False))
        )
        ended = bool(terminated) or bool(truncated)
        return step, self.reset(episode + 1) if ended and goes_on else seen

    def _change(self) -> None:
        """Gives the environment the task of the next step, where it has another one."""
        if self.timeline is None:
            return
        index = self.timeline.index(self.taken)
        if index != self.present:
            changeable(self.env).change_task(self.timeline.tasks[index])
            self.present = index


def _host_result(
    obs: np.ndarray, reward: Any, cost: Any, terminated: bool, truncated: bool, success: bool
) -> Step:
    """A step in NumPy's types, which compiled functions take as they take JAX's."""
    values: tuple[Any, ...] = (
        obs,
        np.float32(reward),
        np.float32(cost),
        np.bool_(terminated),
        np.bool_(truncated),
        np.bool_(success),
    )
    return Step(*values)


def run_environment(
    domain: AbstractHostDomain, config: RunConfig, tasks: Timeline, terminate_on_violation: bool
) -> HostEnvironment:
    """The environment of a run whose robot has these tasks."""
    env = domain.make_env(tasks.tasks[0], terminate_on_violation=terminate_on_violation)
    changing = tasks if tasks.changes else None
    return HostEnvironment(env, config.seed, domain.spaces, timeline=changing)


@runtime_checkable
class Simulators(Protocol):
    """The environments of the runs of a host loop, by number of the run."""

    def reset(self, run: int, step: int, episode: int) -> np.ndarray:
        """The first observation of an episode that begins when a run has taken `step` steps."""
        ...

    def step(
        self, actions: Mapping[int, tuple[np.ndarray, int]]
    ) -> dict[int, tuple[Step, np.ndarray]]:
        """Steps some runs: of each, action and episode to what `HostEnvironment.step` returns."""
        ...

    def close(self) -> None:
        """Frees what they hold."""
        ...


@dataclass(frozen=True)
class LocalSimulators:
    """Environments that are stepped one after the other in this process."""

    environments: Sequence[HostEnvironment]

    def reset(self, run: int, step: int, episode: int) -> np.ndarray:
        """As `Simulators` says."""
        self.environments[run].taken = step
        return self.environments[run].reset(episode)

    def step(
        self, actions: Mapping[int, tuple[np.ndarray, int]]
    ) -> dict[int, tuple[Step, np.ndarray]]:
        """As `Simulators` says."""
        return {run: self.environments[run].step(*one) for run, one in actions.items()}

    def close(self) -> None:
        """As `Simulators` says."""
        for environment in self.environments:
            environment.env.close()


@partial(jax.jit, static_argnums=(0, 1))
def _first_act(axis: SeedAxis, agent: AbstractAgent, roots: Roots, state: DeployState) -> Act:
    return axis.map(lambda root, one: act_at(agent, one, root), (0, 0))(roots, state)


def host_step(
    agent: AbstractAgent,
    learning: bool | None,
    roots: Roots,
    state: DeployState,
    result: Step,
    obs: Array,
) -> tuple[DeployState, EpisodeRecord, Metrics]:
    """Stores what the pending action led to, learns from the replay, and acts at `obs`.

    `learning` is None where some seeds are past their warm-up and others are not. (A conditional
    would always do, but costs a copy of all networks per step.)
    """
    index = state.step
    state, record = observe(agent, state, state.env, result)
    learner, metrics = state.agent, {}
    if learning is not False:
        key = jax.random.fold_in(roots.learn, index)
        learner, metrics = agent.learn(state.agent, state.replay, state.violations, key=key)
    if learning is None:
        learner = where(index >= agent.learning_starts, learner, state.agent)
    state = replace(state, agent=learner, obs=obs)
    return replace(state, env=act_at(agent, state, roots)), record, metrics


CompiledStep = Callable[
    [list[Array], list[Array], Step, Array | np.ndarray],
    tuple[list[Array], Array, EpisodeRecord, Metrics],
]
"""From the leaves of roots and state to those of the next state, with the action to take."""


@cache
def compiled_step(
    axis: SeedAxis,
    agent: AbstractAgent,
    learning: bool | None,
    roots: Any,
    state: Any,
) -> CompiledStep:
    """`host_step` of all seeds between leaves, which donates those of the state.

    `roots` and `state` are the structures (`jax.tree.structure`) of these.

    A state has a hundred arrays in nested modules. To take them apart and put them together in
    Python, and to compare the agent with that of the step before, took longer than the rest of a
    call; leaves in a list pass through.
    """

    def step(
        root_leaves: list[Array], leaves: list[Array], result: Step, obs: Array
    ) -> tuple[list[Array], Array, EpisodeRecord, Metrics]:
        given = (jax.tree.unflatten(roots, root_leaves), jax.tree.unflatten(state, leaves))
        mapped = axis.map(partial(host_step, agent, learning), (0, 0, 0, 0))
        following, record, metrics = mapped(*given, result, obs)
        return jax.tree.leaves(following), following.env.action, record, metrics

    return jax.jit(step, donate_argnums=1)


@partial(jax.jit, static_argnums=(0, 1))
def _chunk_metrics(
    axis: SeedAxis, agent: AbstractAgent, roots: Roots, state: DeployState
) -> Metrics:
    def metrics(root: Roots, one: DeployState) -> Metrics:
        key = jax.random.fold_in(substream(root.learn, Stream.CHUNK_METRICS), one.step)
        return agent.chunk_metrics(one.agent, one.replay, one.violations, key=key)

    return axis.map(metrics, (0, 0))(roots, state)


def pending_act(agent: AbstractAgent, roots: Roots, state: DeployState) -> DeployState:
    """A state that has only observed its first observation, with the action it takes there."""
    return replace(state, env=_first_act(SeedAxis(1), agent, roots, state))


@dataclass
class _Lane:
    """One seed of a host loop, and its chunk so far."""

    step: int
    episode: int
    first_step: int
    episodes: list[dict[str, Any]] = field(default_factory=list)
    result: Step | None = None
    obs: np.ndarray | None = None
    final: DeployState | None = None

    @property
    def ended(self) -> bool:
        """Whether the last step ended an episode."""
        return self.result is not None and bool(self.result.terminated or self.result.truncated)

    def close_chunk(self, state: DeployState, metrics: dict[str, float]) -> Chunk:
        """What happened since the last chunk."""
        chunk = Chunk(state, self.first_step, self.episodes, metrics)
        self.first_step, self.episodes = self.step, []
        return chunk


def _gather(axis: SeedAxis, lanes: Sequence[_Lane]) -> tuple[Step, np.ndarray]:
    """The results and next observations of all seeds as one tree of NumPy arrays."""
    pairs: list[Any] = [(lane.result, lane.obs) for lane in lanes]
    return pairs[0] if axis.count == 1 else jax.tree.map(lambda *leaves: np.stack(leaves), *pairs)


def deploy_host(
    axis: SeedAxis,
    agent: AbstractAgent,
    simulators: Simulators,
    roots: Sequence[Roots],
    states: Sequence[DeployState],
    on_chunk: OnChunk,
    upkeeps: Sequence[Upkeep] = (),
) -> list[DeployState]:
    """Runs all episodes of all seeds, from wherever `states` are: at the start of an episode.

    A chunk ends with the first episode that ends after `chunk_steps` steps, so that a checkpoint
    needs no state of a simulator. Seeds that are finished idle until all are. `upkeeps` (one per
    seed, or none) are at fixed steps, also within a chunk; an action that was chosen is taken.
    """
    config = agent.config
    lanes = []
    for seed, state in enumerate(states):
        step, episode = int(state.step), int(state.episode)
        lane = _Lane(step, episode, step)
        lane.final = state if config.finished(step, episode) else None
        if lane.final is None:
            simulators.reset(seed, step, episode)
        else:
            lane.result, lane.obs = _nothing(agent.spaces)
        lanes.append(lane)
    # Copied, because steps donate their state and callers keep what they passed.
    state = jax.tree.map(jnp.copy, axis.stack(states))
    action, (leaves, structure) = state.env.action, jax.tree.flatten(state)
    stacked_roots = axis.stack(roots)
    root_leaves, root_structure = jax.tree.flatten(stacked_roots)
    steps: dict[bool | None, CompiledStep] = {}
    while any(lane.final is None for lane in lanes):
        actions = np.array(action).reshape(axis.count, -1)
        running = [seed for seed, lane in enumerate(lanes) if lane.final is None]
        learns = {lanes[seed].step >= agent.learning_starts for seed in running}
        learning = learns.pop() if len(learns) == 1 else None
        answers = simulators.step({seed: (actions[seed], lanes[seed].episode) for seed in running})
        for seed in running:
            lanes[seed].result, lanes[seed].obs = answers[seed]
            lanes[seed].step += 1
        if learning not in steps:
            steps[learning] = compiled_step(axis, agent, learning, root_structure, structure)
        leaves, action, record, metrics = steps[learning](
            root_leaves, leaves, *_gather(axis, lanes)
        )
        for seed in running:
            lane = lanes[seed]
            if lane.ended:
                lane.episode += 1
                lane.episodes.append(_episode(axis.unstack(record)[seed]))
            if upkeeps and lane.step % upkeeps[seed].every == 0:
                state = jax.tree.unflatten(structure, leaves)
                leaves = jax.tree.leaves(_kept_up(axis, upkeeps[seed], state, seed))
            finished = config.finished(lane.step, lane.episode)
            if finished or (lane.ended and lane.step - lane.first_step >= config.chunk_steps):
                state = jax.tree.unflatten(structure, leaves)
                one = axis.unstack(state)[seed]
                numbers = _numbers(axis, agent, stacked_roots, state, metrics, seed)
                on_chunk(seed, lane.close_chunk(one, numbers))
                lane.final = one if finished else None
    return [lane.final for lane in lanes if lane.final is not None]


def _kept_up(axis: SeedAxis, upkeep: Upkeep, state: DeployState, seed: int) -> DeployState:
    """The states of all seeds after the upkeep of one of them."""
    each = axis.unstack(state)
    each[seed] = upkeep(each[seed])
    # Copied, because steps donate their state.
    return jax.tree.map(jnp.copy, axis.stack(each))


def _nothing(spaces: Spaces) -> tuple[Step, np.ndarray]:
    """What a finished seed is given while others run; nothing of it is kept."""
    obs = np.zeros(spaces.obs_size, np.float32)
    return _host_result(obs, 0.0, 0.0, False, False, False), obs


def _episode(record: EpisodeRecord) -> dict[str, Any]:
    """The episode that a step ended, as plain values."""
    values = record._asdict().items()
    return {name: np.asarray(value).item() for name, value in values if name != "done"}


def _numbers(
    axis: SeedAxis,
    agent: AbstractAgent,
    roots: Roots,
    state: DeployState,
    metrics: Metrics,
    seed: int,
) -> dict[str, float]:
    """Metrics of the last update of one seed; none before the first update."""
    if int(axis.unstack(state.step)[seed]) <= agent.learning_starts:
        return {}
    metrics = metrics | _chunk_metrics(axis, agent, roots, state)
    return {name: float(axis.unstack(value)[seed]) for name, value in metrics.items()}
