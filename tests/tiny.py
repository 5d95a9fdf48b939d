"""Configurations that run in seconds: what the tests of the phases share."""

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from safemesa.experiments.arms import configure
from safemesa.phases import presets
from safemesa.phases.config import RunConfig, fitted
from safemesa.phases.presets.plugin_values import Preset


def tiny_config(arm: str = "mesa", domain: str = "navigation2", seed: int = 7) -> RunConfig:
    """All phases on small networks: about a second of compute beside compilation."""
    config = configure(arm, domain, "quick")
    return replace(
        config,
        seed=seed,
        data=replace(config.data, train_tasks=4, train_transitions=300, test_transitions=200),
        risk=replace(config.risk, hidden=(8,)),
        meta=fitted(
            type(config.meta),
            config.meta,
            {"iterations": 40, "tasks": 2, "support_batch": 16, "query_batch": 16},
        ),
        adapt=replace(config.adapt, steps=6, scratch_steps=20, batch=16),
        sac=replace(config.sac, hidden=(8,), batch=16, warmup_steps=10),
        deploy=replace(config.deploy, episodes=6, chunk_steps=60),
    )


def tiny_presets(patch: pytest.MonkeyPatch) -> None:
    """Makes every preset as small as `tiny_config`, so that commands can run as they are shown."""
    own, small = presets.custom, tiny_config()

    def tiny(make: Callable[[str], Preset]) -> Callable[[str], Preset]:
        def made(preset: str) -> Preset:
            given = make(preset)
            config = given.config
            simulated = config.data.train_policy == "sac"
            tasks, rows = (2, 450) if simulated else (4, 300)
            data = replace(
                config.data, train_tasks=tasks, train_transitions=rows, test_transitions=200
            )
            config = replace(
                config,
                data=data,
                risk=replace(config.risk, hidden=small.risk.hidden),
                adapt=small.adapt,
                sac=small.sac,
                deploy=replace(config.deploy, episodes=2 if simulated else 6, chunk_steps=60),
            )
            sizes = {"iterations": 40, "tasks": 2, "support_batch": 16, "query_batch": 16}
            return replace(given, config=config, meta={**given.meta, **sizes})

        return made

    for name, make in presets.DOMAIN_PRESETS.items():
        patch.setitem(presets.DOMAIN_PRESETS, name, tiny(make))
    patch.setattr(presets, "custom", lambda domain, preset: tiny(partial(own, domain))(preset))


TINY_FLAGS = shlex.split(
    "--preset quick --seed 7 --data.train-tasks 4 --data.train-transitions 300 "
    "--data.test-transitions 200 --risk.hidden 8 --meta.iterations 1200 --meta.tasks 2 "
    "--meta.support-batch 16 --meta.query-batch 16 --adapt.steps 6 --adapt.scratch-steps 20 "
    "--adapt.batch 16 --sac.hidden 8 --sac.batch 16 --sac.warmup-steps 10 "
    "--deploy.episodes 12 --deploy.chunk-steps 40"
)

GRID_FLAGS = shlex.split(
    "--preset quick --data.train-tasks 4 --data.train-transitions 300 --data.test-transitions 200 "
    "--risk.hidden 8 --meta.iterations 40 --meta.tasks 2 --meta.support-batch 16 "
    "--meta.query-batch 16 --adapt.steps 6 --adapt.scratch-steps 20 --adapt.batch 16 "
    "--sac.hidden 8 --sac.batch 16 --sac.warmup-steps 10 --deploy.episodes 6 "
    "--deploy.chunk-steps 60"
)
"""The settings of `tiny_config` as flags."""


def lines_without_wall(file: Path) -> list[dict]:
    """A `.jsonl` of a run but for what differs between two runs of one seed: how long it took."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "wall_s"} for line in lines]


def episodes_of(folder: Path) -> list[dict]:
    """`metrics.jsonl` of a run folder, without wall times."""
    return lines_without_wall(folder / "metrics.jsonl")
