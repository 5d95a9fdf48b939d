"""Which task a robot has at each step of Phase 3.

A timeline is a function of configuration and seed alone, and what is simulated at a step is a
function of the timeline and the step: so a run that is resumed meets what it would have met.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from safemesa.core.errors import ConfigurationError
from safemesa.core.streams import Stream, generator
from safemesa.core.types import PyTree
from safemesa.domains.base import AbstractDomain, AbstractJaxDomain, sample_test_task
from safemesa.domains.changes import (
    Changeable,
    changed_parameters,
    changed_task,
    task_between,
)
from safemesa.domains.host import AbstractHostDomain
from safemesa.phases.change_text import PlannedChange, planned_changes
from safemesa.phases.config import RunConfig

STAGES = 100
"""A gradual change goes in at most so many equal stages: simulators compile a model for each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One change of one run: it begins at `step`, and from `complete` on the task is `task`.

    A change at once begins where it is complete: the first step with other dynamics.
    """

    step: int
    complete: int
    task: PyTree


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Timeline:
    """The tasks of a run: `tasks[i]` from step `starts[i]` to the next start. `starts[0]` is 0."""

    starts: tuple[int, ...]
    tasks: tuple[PyTree, ...]
    changes: tuple[Change, ...] = ()

    def index(self, step: int) -> int:
        """Which task the environment has while it takes a step, counted from 0."""
        return bisect_right(self.starts, step) - 1

    def task(self, step: int) -> PyTree:
        """That task."""
        return self.tasks[self.index(step)]

    @property
    def arrays(self) -> PyTree:
        """What compiled loops are given: the one task, or a table of all."""
        if not self.changes:
            return self.tasks[0]
        stacked = jax.tree.map(
            lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *self.tasks
        )
        return TaskTable(jnp.asarray(self.starts, jnp.int32), stacked)


def unchanging(task: PyTree) -> Timeline:
    """Of a robot that has one task throughout."""
    return Timeline(starts=(0,), tasks=(task,))


class TaskTable(eqx.Module):
    """The tasks of a timeline as arrays `[tasks, ...]`, and the step from which on each holds."""

    starts: Int[Array, " tasks"]
    tasks: PyTree


def task_at(task: PyTree, step: Int[Array, ""]) -> PyTree:
    """The task at a step: of a table, its row; a task that never changes is itself."""
    if not isinstance(task, TaskTable):
        return task
    index = jnp.sum(task.starts <= step) - 1
    return jax.tree.map(lambda leaf: leaf[index], task.tasks)


def timeline(domain: AbstractDomain, config: RunConfig) -> Timeline:
    """The tasks of a run: its test task, then what `deploy.change` makes of it.

    Raises:
        ConfigurationError: the domain cannot read a change, or the run ends before it.
    """
    task = sample_test_task(domain, config.seed)
    starts, tasks, changes = [0], [task], []
    most = config.deploy.maximum_steps(domain.spaces.horizon)
    for number, plan in enumerate(planned_changes(config.deploy.change)):
        if plan.last >= most:
            raise ConfigurationError(
                f"deploy.change begins at step {plan.last}, but the run has at most {most} steps, "
                f"counted from 0. Choose an earlier step, or raise "
                f"{'deploy.steps' if config.deploy.steps else 'deploy.episodes'}."
            )
        after = _task_after(domain, config, number, plan, task)
        step = plan.first
        if plan.last > plan.first:
            drawn = generator(config.seed, Stream.CHANGE_STEP, number)
            step = int(drawn.integers(plan.first, plan.last + 1))
        stages = max(1, min(STAGES, plan.duration))
        for stage in range(1, stages + 1):
            starts.append(step + stage * plan.duration // stages)
            tasks.append(task_between(domain, task, after, stage / stages))
        changes.append(Change(step=step, complete=starts[-1], task=after))
        task = after
    return Timeline(starts=tuple(starts), tasks=tuple(tasks), changes=tuple(changes))


def _task_after(
    domain: AbstractDomain, config: RunConfig, number: int, plan: PlannedChange, task: PyTree
) -> PyTree:
    if plan.parameters is not None:
        return changed_task(domain, task, plan.parameters)
    drawn = domain.sample_task(generator(config.seed, Stream.CHANGE_TASK, number), "train")
    # The round trip gives the types that are compiled for.
    return changed_task(domain, task, domain.task_parameters(drawn))


def check_changes(domain: AbstractDomain, config: RunConfig) -> None:
    """Refuses changes that the domain's robot cannot have, before anything is computed.

    Raises:
        ConfigurationError: as `timeline`; or its environments cannot change in a run.
    """
    if not config.deploy.change:
        return
    changing = timeline(domain, config)
    if isinstance(domain, AbstractJaxDomain):
        shapes = jax.eval_shape(lambda: changing.tasks[0])
        for change in changing.changes:
            if jax.eval_shape(lambda one=change.task: one) != shapes:
                raise ConfigurationError(
                    f"a change of {domain.name} leads to a task of other shapes than its first. "
                    "Give parameters of the same shapes."
                )
    elif isinstance(domain, AbstractHostDomain):
        env = domain.make_env(changing.tasks[0])
        try:
            # Every kind of part is tried, so that one that the robot does not have is refused now.
            for change in changing.changes:
                changeable(env).change_task(change.task)
        finally:
            env.close()


def changeable(env: Any) -> Changeable:
    """An environment as one that can change.

    Raises:
        ConfigurationError: it cannot.
    """
    if not isinstance(env, Changeable):
        raise ConfigurationError(
            f"{env} cannot change in a run (deploy.change): expected a method change_task(task), "
            "which goes on from the same state with the dynamics of another task. Write it, or "
            "leave deploy.change out."
        )
    return env


def recorded_changes(
    domain: AbstractDomain, config: RunConfig, env_steps: int, episode_ends: Sequence[int]
) -> list[dict[str, Any]]:
    """What `summary.json` says of the changes of a run.

    Args:
        domain: The domain.
        config: The configuration.
        env_steps: Environment steps that the run took.
        episode_ends: Environment steps at the ends of the run's episodes, in their order.
    """
    records = []
    for change in timeline(domain, config).changes:
        reached = change.step < env_steps
        records.append(
            {
                "step": change.step,
                "complete": change.complete,
                "episode": bisect_right(episode_ends, change.step) if reached else None,
                "task": changed_parameters(domain, change.task),
            }
        )
    return records
