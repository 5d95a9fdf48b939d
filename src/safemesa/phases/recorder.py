"""What Phase 3 writes while it runs, and how it is restored from that."""

import time
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from safemesa.core.files import write_json
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.replay import extend
from safemesa.domains.base import AbstractDomain, AbstractJaxDomain
from safemesa.phases.agent import Agent
from safemesa.phases.artefacts import RiskModel, save_artefact
from safemesa.phases.build import phase_key, task_learner_key
from safemesa.phases.checkpoint import Checkpointer, ReplayFile
from safemesa.phases.collect import sample_test_task
from safemesa.phases.config import RunConfig
from safemesa.phases.deploy import Chunk, DeployState, deploy_roots, initial_state
from safemesa.phases.progress import Progress
from safemesa.phases.run_folder import RunFolder
from safemesa.phases.sinks import Sink


def common_start(recorders: "Sequence[Recorder]", episodes: int) -> list[DeployState]:
    """Restores every seed; unfinished seeds go back to the last step they all have saved."""
    states = [one.restore(None) for one in recorders]
    unfinished = [int(state.step) for state in states if int(state.episode) < episodes]
    common = min(unfinished, default=0)
    for seed, state in enumerate(states):
        if int(state.episode) < episodes and int(state.step) > common:
            states[seed] = recorders[seed].restore(common)
    return states


class Recorder:
    """Writes what one seed does in Phase 3, and restores it."""

    def __init__(
        self,
        *,
        folder: RunFolder,
        config: RunConfig,
        domain: AbstractJaxDomain,
        agent: Agent,
        model: RiskModel,
        test_log: OfflineTasks,
        sink: Sink,
        progress: Progress,
    ) -> None:
        self.folder, self.config, self.domain, self.agent = folder, config, domain, agent
        self.sink, self.progress = sink, progress
        self.task = sample_test_task(domain, config.seed)
        self.roots = deploy_roots(phase_key(config.seed, "deploy"))
        self.start = initial_state(
            agent,
            domain,
            self.task,
            model,
            test_log if agent.guard.uses_risk else None,
            self.roots,
            task_learner_key(config),
        )
        self.saver = Checkpointer(folder.checkpoints, "deploy")
        self.file = ReplayFile(folder.replay / "rows.f32", agent.layout.width)
        self.cumulative, self.wall_before, self.began = 0, 0.0, time.perf_counter()

    def restore(self, at: int | None) -> DeployState:
        """The state of the last checkpoint (or of step `at`), files cut back to match it."""
        template = _without_rows(self.start)
        found = self.saver.restore(template, at=at) if at != 0 else None
        notes = found.notes if found else {}
        self.file.truncate(int(notes.get("replay_rows", 0)))
        self.folder.metrics.truncate(int(notes.get("metrics_bytes", 0)))
        self.folder.learning.truncate(int(notes.get("learning_bytes", 0)))
        self.cumulative = int(notes.get("cumulative_violations", 0))
        self.wall_before, self.began = float(notes.get("wall_s", 0.0)), time.perf_counter()
        if found is None:
            self._describe_replay()
            return self.start
        rows = self.file.read()
        replay = extend(self.start.replay, jnp.asarray(rows)) if len(rows) else self.start.replay
        return _with_rows(found.state, replay.rows)

    @property
    def wall(self) -> float:
        """Seconds of Phase 3 so far, interrupted processes included."""
        return self.wall_before + time.perf_counter() - self.began

    def record(self, chunk: Chunk) -> None:
        """Replay rows, then metrics, then the checkpoint that counts them."""
        state = chunk.state
        replay = state.replay
        first, last = chunk.first_step, int(state.step)
        ring = replay.capacity - replay.protected
        positions = replay.protected + np.arange(first, last) % ring
        self.file.append(np.asarray(replay.rows[jnp.asarray(positions)]))
        lines = []
        done = int(state.episode) - len(chunk.episodes)
        for number, episode in enumerate(chunk.episodes, start=done):
            self.cumulative += int(episode["violation"])
            lines.append(self._line(number, episode))
        metrics_bytes = self.folder.metrics.append(lines)
        learning = {"env_steps": last, **chunk.metrics}
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
            },
        )
        self.sink.write("deploy", last, chunk.metrics | {"violations": float(self.cumulative)})
        self.progress.update(int(state.episode), ("violations", float(self.cumulative)))

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

    def _describe_replay(self) -> None:
        layout = [[name, width] for name, width in self.agent.layout.fields]
        write_json(self.folder.replay / "layout.json", {"dtype": "float32", "fields": layout})

    def finish(self, state: DeployState, wall: dict[str, float]) -> None:
        """Saves the deployed risk model and the summary, then drops the checkpoints.

        `wall` has the seconds of the earlier phases.
        """
        if self.agent.guard.uses_risk:
            risk = state.agent.risk
            model = RiskModel(risk.critic, risk.recovery.policy, state.agent.normaliser)
            spaces = self.domain.spaces
            save_artefact(self.folder.deployed_model, model, self.config, spaces, {})
        seconds = {**wall, "deploy": self.wall}
        summary = summarise(self.config, self.folder, self.domain, seconds)
        write_json(self.folder.summary_file, summary)
        self.saver.remove()


def _without_rows(state: DeployState) -> DeployState:
    return _with_rows(state, state.replay.rows[:0])


def _with_rows(state: DeployState, rows: jax.Array) -> DeployState:
    return eqx.tree_at(lambda one: one.replay.rows, state, rows)


def summarise(
    config: RunConfig, folder: RunFolder, domain: AbstractDomain, wall: dict[str, float]
) -> dict[str, Any]:
    """The fields of `summary.json`, from the lines of `metrics.jsonl`."""
    lines = folder.metrics.read()
    returns = [line["return"] for line in lines]
    phases = ("collect", "meta_train", "adapt", "deploy")

    def total(name: str) -> int:
        return sum(line[name] for line in lines)

    return {
        "arm": config.arm,
        "domain": config.domain,
        "preset": config.preset,
        "seed": config.seed,
        "episodes": len(lines),
        "env_steps": lines[-1]["env_steps"],
        "violations": total("violation"),
        "violations_under_recovery": total("violation_under_recovery"),
        "successes": total("success") if domain.has_success else None,
        "return_mean": float(np.mean(returns)),
        "return_last_100": float(np.mean(returns[-100:])),
        "interventions": total("interventions"),
        "wall_s": {phase: round(wall.get(phase, 0.0), 3) for phase in phases},
    }
