"""Domains that live on the host: Gymnasium environments around a simulator that does not compile.

This module needs no simulator: a domain's tasks and spaces are known without one, and only
`make_env` imports it.
"""

import abc
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from safemesa.core.errors import ConfigurationError
from safemesa.core.types import PyTree
from safemesa.domains.base import AbstractDomain, choose_task
from safemesa.domains.registry import domain as domain_of_name

Environment = gymnasium.Env[np.ndarray, np.ndarray]


@dataclass(frozen=True, kw_only=True, slots=True)
class AbstractHostDomain(AbstractDomain):
    """A domain whose tasks are Gymnasium environments.

    Attributes:
        log_length: Steps of one rollout of the random policy, uniform over the action space, that
            collects the log of the new robot. No violation ends such a rollout.
    """

    log_length: int = 1000

    @abc.abstractmethod
    def fixed_tasks(self, split: str) -> tuple[PyTree, ...]:
        """All tasks of a split where there are finitely many, in their order; otherwise none."""

    @abc.abstractmethod
    def make_env(
        self,
        task: PyTree,
        *,
        render_mode: str | None = None,
        terminate_on_violation: bool | None = None,
    ) -> Environment:
        """The environment of one task, unwrapped.

        Each step reports `info["cost"]` (0.0 or 1.0) and `info["success"]`; the horizon truncates.
        An episode is a function of the seed given to `reset` and of the actions. Without
        `terminate_on_violation` the domain's own setting holds.

        Raises:
            ConfigurationError: the simulator is not installed, or the task does not fit it.
        """

    def train_tasks(self, count: int, rng: np.random.Generator) -> tuple[PyTree, ...]:
        """`count` training tasks: the first of the fixed ones, or draws where there are none.

        Raises:
            ConfigurationError: there are fewer.
        """
        fixed = self.fixed_tasks("train")
        if not fixed:
            return tuple(self.sample_task(rng, "train") for _ in range(count))
        if count > len(fixed):
            raise ConfigurationError(
                f"{self.name} has {len(fixed)} training tasks; {count} were asked for. "
                f"Ask for at most {len(fixed)}."
            )
        return fixed[:count]


def make_host_environment(
    domain: str | AbstractHostDomain,
    *,
    task: PyTree = None,
    task_seed: int = 0,
    terminate_on_violation: bool = True,
    render_mode: str | None = None,
) -> Environment:
    """Makes the environment of one task; the entry point of Gymnasium's ids.

    Args:
        domain: A domain or its name.
        task: The task, as `sample_task` or as `task_parameters` gives it.
        task_seed: Draws the test task, where `task` is not given.
        terminate_on_violation: Whether a violation ends the episode. False for data collection.
        render_mode: None or `"rgb_array"`.

    Raises:
        ConfigurationError: an argument is not one of these, or the simulator is missing.
    """
    chosen = domain_of_name(domain) if isinstance(domain, str) else domain
    if not isinstance(chosen, AbstractHostDomain):
        raise ConfigurationError(
            f"{domain!r} is not a domain of the host. Make it by its Gymnasium id, as in "
            "gymnasium.make('safemesa/HalfCheetahDisabled-v0')."
        )
    return chosen.make_env(
        choose_task(chosen, task, task_seed),
        render_mode=render_mode,
        terminate_on_violation=terminate_on_violation,
    )


# Where an entry point names this mode, Gymnasium offers `human` and `rgb_array_list` too, by
# wrappers of its own. A class, which an entry point is elsewhere, has this attribute anyway.
make_host_environment.metadata = {  # pyright: ignore[reportFunctionMemberAccess]
    "render_modes": ["rgb_array"]
}


def finite_floats(values: Any, count: int) -> np.ndarray | None:
    """`count` finite numbers as an array, or None where `values` is anything else."""
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        return None
    return array if array.shape == (count,) and np.isfinite(array).all() else None


def check_split(split: str) -> None:
    """Raises a ConfigurationError unless `split` is "train" or "test"."""
    if split not in ("train", "test"):
        raise ConfigurationError(f"split is {split!r}; it must be 'train' or 'test'.")
