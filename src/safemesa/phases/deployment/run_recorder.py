"""What Phase 3 writes while it runs, and how it is restored from that."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from safemesa.core.files import json_bytes, write_atomic
from safemesa.datasets.replay import extend, positions
from safemesa.domains.base import AbstractDomain
from safemesa.learners.monitor.tracker import Tracker
from safemesa.phases.config import RunConfig
from safemesa.phases.deployment.abstract_agent import AbstractAgent
from safemesa.phases.deployment.deploy_state import Chunk, DeployState
from safemesa.phases.deployment.timeline import recorded_changes
from safemesa.phases.deployment.upkeep import recorded_alarms
from safemesa.phases.progress import Progress
from safemesa.phases.storage.artefacts import artefact_kind, save_artefact
from safemesa.phases.storage.checkpoint import Checkpointer
from safemesa.phases.storage.growing_file import GrowingFile
from safemesa.phases.storage.replay_file import describe_replay, replay_file
from safemesa.phases.storage.run_folder import (
    LEARNING_FILE,
    METRICS_FILE,
    ROWS_FILE,
    VOUCHED,
    RunFolder,
)
from safemesa.phases.storage.sinks import Sink

GATHERED_ROWS = 512
"""Replay rows are copied to the host in multiples of this."""


def common_start(recorders: "Sequence[Recorder]", in_step: bool) -> list[DeployState]:
    """Restores every seed.

    Where seeds advance `in_step`, unfinished ones go back to the last step they all have saved,
    the beginning if there is no other.
    """
    states = [one.restore(None) for one in recorders]
    if not in_step:
        return states
    running = {
        seed: int(state.step)
        for seed, (one, state) in enumerate(zip(recorders, states, strict=True))
        if not one.config.deploy.finished(int(state.step), int(state.episode))
    }
    # Restoring has dropped what is later.
    kept = [{0, *recorders[seed].saver.steps()} for seed in running]
    common = max(set.intersection(*kept)) if kept else 0
    for seed, step in running.items():
        if step > common:
            states[seed] = recorders[seed].restore(common)
    return states


class Recorder:
    """Writes what one seed does in Phase 3, and restores it."""

    def __init__(
        self,
        *,
        folder: RunFolder,
        config: RunConfig,
        domain: AbstractDomain,
        agent: AbstractAgent,
        start: Callable[[], DeployState],
        sink: Sink,
        progress: Progress,
    ) -> None:
        """`start` makes the state before the first step: its replay need not be kept."""
        self.folder, self.config, self.domain, self.agent = folder, config, domain, agent
        self.sink, self.progress, self.start = sink, progress, start
        self.saver = Checkpointer(folder.checkpoints, "deploy")
        self.file = replay_file(folder.replay, agent.layout)
        self.cumulative, self.wall_before, self.began = 0, 0.0, time.perf_counter()

    def restore(self, at: int | None) -> DeployState:
        """The state of the last checkpoint (or of step `at`), files cut back to match it."""
        start = self.start()
        template = _without_rows(start)
        found = self.saver.restore(template, at, self._check) if at != 0 else None
        notes = found.notes if found else {}
        # First, as they count rows that are cut off now.
        self.saver.remove(after=found.step if found else 0)
        self.file.truncate(int(notes.get("replay_rows", 0)))
        self.folder.metrics.truncate_bytes(int(notes.get("metrics_bytes", 0)))
        self.folder.learning.truncate_bytes(int(notes.get("learning_bytes", 0)))
        self.cumulative = int(notes.get("cumulative_violations", 0))
        self.wall_before, self.began = float(notes.get("wall_s", 0.0)), time.perf_counter()
        describe_replay(self.folder.replay, self.agent.layout)
        if found is None:
            return start
        rows = self.file.read()
        replay = extend(start.replay, jnp.asarray(rows)) if len(rows) else start.replay
        return _with_rows(found.state, replay.rows)

    def _check(self, notes: dict[str, Any]) -> None:
        """Whether the files begin as they did when a checkpoint with these notes was written.

        Raises:
            CheckpointError: one of them does not. A checkpoint of an earlier version says nothing.
        """
        vouched = notes.get(VOUCHED)
        if vouched is not None:
            for name, file in self._growing().items():
                file.check(vouched.get(name))

    def _growing(self) -> dict[str, GrowingFile]:
        """Files that a run appends to, by their paths below its folder."""
        return {
            ROWS_FILE: self.file,
            METRICS_FILE: self.folder.metrics,
            LEARNING_FILE: self.folder.learning,
        }

    @property
    def wall(self) -> float:
        """Seconds of Phase 3 so far, interrupted processes included."""
        return self.wall_before + time.perf_counter() - self.began

    def record(self, chunk: Chunk) -> None:
        """Replay rows, then metrics, then the checkpoint that counts them."""
        state = chunk.state
        replay = state.replay
        first, last = chunk.first_step, int(state.step)
        # Padded, so that chunks of any length share a few compiled gathers.
        count = -(-(last - first) // GATHERED_ROWS) * GATHERED_ROWS
        rows = replay.rows[jnp.asarray(positions(replay, first, count))]
        self.file.append(np.asarray(rows)[: last - first])
        lines = []
        done = int(state.episode) - len(chunk.episodes)
        for number, episode in enumerate(chunk.episodes, start=done):
            self.cumulative += int(episode["violation"])
            lines.append(self._line(number, episode))
        metrics_bytes = self.folder.metrics.append(lines)
        learning = {"env_steps": last, **chunk.metrics, **_monitored(state)}
        learning_bytes = self.folder.learning.append([learning])
        self.saver.save(
            last,
            _without_rows(state),
            {
                "replay_rows": last,
                "metrics_bytes": metrics_bytes,
                "learning_bytes": learning_bytes,
                "cumulative_violations": self.cumulative,
                "wall_s": self.wall,
                VOUCHED: {name: file.vouch() for name, file in self._growing().items()},
            },
        )
        self.sink.write("deploy", last, chunk.metrics | {"violations": float(self.cumulative)})
        self.progress.update(self.done(state), ("violations", float(self.cumulative)))

    def done(self, state: DeployState) -> int:
        """Progress: episodes, or steps where those are limited."""
        return int(state.episode if self.config.deploy.steps is None else state.step)

    def _line(self, number: int, episode: dict[str, Any]) -> dict[str, Any]:
        return {
            "episode": number,
            "env_steps": episode["env_steps"],
            "return": episode["episode_return"],
            "length": episode["length"],
            "violation": int(episode["violation"]),
            "success": int(episode["success"]) if self.domain.has_success else None,
            "interventions": episode["interventions"],
            "violation_under_recovery": int(episode["violation_under_recovery"]),
            "cumulative_violations": self.cumulative,
            "risk_bias": episode["risk_bias"],
            "wall_s": round(self.wall, 3),
        }

    def finish(self, state: DeployState, wall: dict[str, float]) -> None:
        """Saves what the agent has become and the summary, then drops the checkpoints.

        `wall` has the seconds of the earlier phases.
        """
        model = self.agent.deployed(state.agent)
        if model is not None:
            place = self.folder.path / "artefacts" / f"deployed_{artefact_kind(model)}"
            save_artefact(place, model, self.config, self.domain.spaces, {})
        seconds = {**wall, "deploy": self.wall}
        summary = summarise(self.config, self.folder, self.domain, int(state.step), seconds)
        if isinstance(state.monitor, Tracker):
            ends = [line["env_steps"] for line in self.folder.metrics.read()]
            summary["alarms"] = recorded_alarms(state.monitor, ends)
            summary["outside_training"] = int(state.monitor.outside_rows)
        # As they are on disk: a file that was damaged meanwhile is not vouched for.
        for file in self._growing().values():
            file.check(file.vouch(), whole=True)
        text = json_bytes(self.folder.summary_file, summary)
        self.folder.vouch(text)
        write_atomic(self.folder.summary_file, text)
        self.saver.remove()


def _monitored(state: DeployState) -> dict[str, float]:
    """What the monitor says at the end of a chunk."""
    tracker = state.monitor
    if not isinstance(tracker, Tracker):
        return {}
    return {
        "monitor_statistic": float(tracker.statistic),
        "monitor_threshold": float(tracker.threshold),
        "monitor_alarms": float(tracker.count),
        "limit_factor": float(tracker.limit_factor),
        "outside_training": float(tracker.outside_rows),
    }


def _without_rows(state: DeployState) -> DeployState:
    return _with_rows(state, state.replay.rows[:0])


def _with_rows(state: DeployState, rows: jax.Array) -> DeployState:
    return eqx.tree_at(lambda one: one.replay.rows, state, rows)


def summarise(
    config: RunConfig,
    folder: RunFolder,
    domain: AbstractDomain,
    env_steps: int,
    wall: dict[str, float],
) -> dict[str, Any]:
    """The fields of `summary.json`, from the lines of `metrics.jsonl`.

    `changes` are there where the robot was to change in the run.
    """
    lines = folder.metrics.read()
    returns = [line["return"] for line in lines]
    phases = ("collect", "meta_train", "adapt", "deploy")

    def total(name: str) -> int:
        return sum(line[name] for line in lines)

    ends = [line["env_steps"] for line in lines]
    changes = recorded_changes(domain, config, env_steps, ends) if config.deploy.change else []
    return {
        "arm": config.arm,
        "domain": config.domain,
        "preset": config.preset,
        "seed": config.seed,
        "episodes": len(lines),
        "env_steps": env_steps,
        "violations": total("violation"),
        "violations_under_recovery": total("violation_under_recovery"),
        "successes": total("success") if domain.has_success else None,
        "return_mean": float(np.mean(returns)) if returns else None,
        "return_last_100": float(np.mean(returns[-100:])) if returns else None,
        "interventions": total("interventions"),
        "wall_s": {phase: round(wall.get(phase, 0.0), 3) for phase in phases},
        **({"changes": changes} if changes else {}),
    }
