"""What figures show of a run: the risk over the plane while a prior adapts, and trajectories."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from safemesa.core.errors import CheckpointError
from safemesa.core.files import read_json
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.experiments.measures.planes import Plane
from safemesa.experiments.measures.risk_calibration import STEPS
from safemesa.experiments.runs.episode_lines import read_episode_lines
from safemesa.phases.adapt import (
    adapt_with_snapshots,
    adaptation_steps,
    scratch_prior,
    uses_training_logs,
)
from safemesa.phases.config import RunConfig, config_from_json
from safemesa.phases.storage.artefacts import RiskModel, load_prior, load_risk_model
from safemesa.phases.storage.replay_file import read_replay
from safemesa.phases.storage.run_folder import LAYOUT_FILE, ROWS_FILE, RunFolder

ACTIONS = 25
"""Uniform actions over which the risk of a position is averaged."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RiskMaps:
    """Risk of one arm over the plane; entries of `steps` and `risk` belong together."""

    title: str
    where: Plane
    steps: tuple[int, ...]
    risk: tuple[Float[np.ndarray, "rows columns"], ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Episode:
    """One episode of Phase 3 in the plane.

    `intervened` has one entry per step: whether the executed action is not the proposed one.
    """

    number: int
    positions: Float[np.ndarray, "positions 2"]
    intervened: Bool[np.ndarray, " steps"]
    violation: bool
    success: bool


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Paths:
    """Episodes of one arm, by panel: early, in the middle, late."""

    title: str
    where: Plane
    panels: tuple[tuple[Episode, ...], ...]


def run_config(folder: Path) -> RunConfig:
    """The configuration of a run folder.

    Raises:
        CheckpointError: there is none.
        ConfigurationError: another version wrote it.
    """
    file = RunFolder(folder).config_file
    record = read_json(file, error=CheckpointError)
    settings = record.get("config")
    if not isinstance(settings, dict):
        raise CheckpointError(f"{file} has no 'config'. Give a run folder.")
    return config_from_json(RunConfig, settings, str(file))


def adaptation_models(folder: Path, steps: Sequence[int]) -> list[RiskModel]:
    """The critic of a run after each number of Phase 2 steps, by taking these steps again.

    Same prior, test log, keys and compiled functions as the run's own, hence the same models.
    Steps beyond the configured number go on from there.

    Raises:
        CheckpointError: an artefact is missing or damaged.
        ConfigurationError: another version made the run.
    """
    config, run_folder = run_config(folder), RunFolder(folder)
    log = OfflineTasks.load(run_folder.test_log)
    if uses_training_logs(config):
        prior = load_prior(run_folder.prior)[0]
    else:
        prior = scratch_prior(config, log)
    order = sorted(set(steps))
    snapshots = adapt_with_snapshots([config], [prior], [log], order, steps=order[-1])
    by_step = {step: models[0] for step, models in zip(order, snapshots, strict=False)}
    return [by_step[step] for step in steps]


def risk_maps(
    folder: Path, title: str, where: Plane, steps: Sequence[int] = STEPS
) -> RiskMaps | None:
    """Risk of a uniformly random action over the plane; None for an arm without a critic.

    That action is what the critic of Phases 1 and 2 is about (`data.next_action`), and a mean
    over actions shows where the robot should not be, whatever it does next. Where Phase 2 went
    beyond the last step, the model that it left is shown last.
    """
    run_folder = RunFolder(folder)
    if not (run_folder.risk_model / "manifest.json").is_file():
        return None
    left, config, spaces = load_risk_model(run_folder.risk_model)
    models = dict(zip(steps, adaptation_models(folder, steps), strict=True))
    if adaptation_steps(config) > max(steps):
        models[adaptation_steps(config)] = left
    actions = jnp.asarray(uniform_actions(spaces.action_size))
    points = jnp.asarray(where.points)
    risks = [np.asarray(_mean_risk(model, points, actions)) for model in models.values()]
    shaped = tuple(risk.reshape(where.blocked.shape) for risk in risks)
    return RiskMaps(title=title, where=where, steps=tuple(models), risk=shaped)


def uniform_actions(size: int, count: int = ACTIONS) -> Float[np.ndarray, "actions act"]:
    """A fixed set of uniform actions in [-1, 1]; always the same."""
    return np.random.default_rng(0).uniform(-1.0, 1.0, (count, size)).astype(np.float32)


@jax.jit
def _mean_risk(
    model: RiskModel, obs: Float[Array, "points obs"], actions: Float[Array, "actions act"]
) -> Float[Array, " points"]:
    """Mean over actions, one action at a time to save memory."""

    def risk(action: Float[Array, " act"]) -> Float[Array, " points"]:
        return model.risk(obs, jnp.broadcast_to(action, (obs.shape[0], action.shape[0])))

    return jnp.mean(jax.lax.map(risk, actions), axis=0)


def late_return(lines: Sequence[dict[str, Any]]) -> float:
    """Mean return of the episodes that end in the last third of a run's environment steps.

    The last so many episodes would be all of a run of few long episodes, its warm-up with them,
    and the end of one of many short ones.
    """
    start = 2.0 / 3.0 * lines[-1]["env_steps"]
    return float(np.mean([line["return"] for line in lines if line["env_steps"] >= start]))


def typical_episodes(total: int, count: int = 5) -> list[range]:
    """Numbers of the first, middle and last episodes: `count` each, or as many as there are."""
    count = max(1, min(count, total // 3))
    starts = (0, (total - count) // 2, total - count)
    return [range(start, start + count) for start in dict.fromkeys(starts)]


def typical_paths(folder: Path, title: str, where: Plane) -> Paths:
    """The first, middle and last episodes of a run.

    Raises:
        CheckpointError: its metrics or replay are missing or damaged.
    """
    chosen = typical_episodes(len(read_episode_lines(folder)))
    panels = tuple(tuple(episodes(folder, some)) for some in chosen)
    return Paths(title=title, where=where, panels=panels)


def episodes(folder: Path, numbers: Sequence[int]) -> list[Episode]:
    """Reads episodes of Phase 3 whose observation is a position.

    Raises:
        CheckpointError: the replay does not hold all steps of `metrics.jsonl`.
    """
    lines, found = read_episode_lines(folder), []
    for number in numbers:
        columns = replay_columns(folder, range(number, number + 1))
        found.append(
            Episode(
                number=number,
                positions=np.concatenate([columns["obs"], columns["next_obs"][-1:]]),
                intervened=intervened(columns),
                violation=bool(lines[number]["violation"]),
                success=bool(lines[number]["success"]),
            )
        )
    return found


def last_episode(folder: Path) -> tuple[int, dict[str, np.ndarray]]:
    """Number and replay columns of the last episode that ended; actions are in [-1, 1].

    Raises:
        CheckpointError: metrics or replay are missing or damaged.
    """
    number = len(read_episode_lines(folder)) - 1
    return number, replay_columns(folder, range(number, number + 1))


def replay_columns(folder: Path, numbers: range | None = None) -> dict[str, np.ndarray]:
    """All steps of consecutive episodes of Phase 3, of those that ended; by default all of them.

    Columns of the replay `[steps, ...]`, actions in [-1, 1]; `episode` and `step` say where in the
    run each row is from (`int32`).

    Raises:
        CheckpointError: metrics or replay are missing or damaged, or do not fit each other.
    """
    run_folder = RunFolder(folder)
    lengths = np.array([line["length"] for line in read_episode_lines(folder)], np.int32)
    run_folder.check_files(ROWS_FILE, LAYOUT_FILE)
    rows = read_replay(run_folder.replay)
    there, ends = len(rows["obs"]), np.cumsum(lengths)
    if there < ends[-1]:
        raise CheckpointError(
            f"{run_folder.replay} holds {there} steps, metrics.jsonl {ends[-1]}: one of them was "
            "changed. Restore the run folder, or make the run again."
        )
    chosen = range(len(lengths)) if numbers is None else numbers
    first, stop = ends[chosen[0]] - lengths[chosen[0]], ends[chosen[-1]]
    columns = {name: np.array(column[first:stop]) for name, column in rows.items()}
    columns["episode"] = np.repeat(np.asarray(chosen, np.int32), lengths[chosen])
    columns["step"] = np.concatenate([np.arange(lengths[one], dtype=np.int32) for one in chosen])
    return columns


def intervened(columns: Mapping[str, np.ndarray]) -> Bool[np.ndarray, " steps"]:
    """Whether the executed action of each replayed step is not the proposed one."""
    return np.any(columns["proposed_action"] != columns["action"], axis=-1)
