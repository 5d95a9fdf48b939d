"""CARL's arms as whole runs: pretraining, Phase 3, resuming, what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_config

from safemesa.core.errors import ConfigurationError
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.experiments.arms import configure, find_arm
from safemesa.phases.carl_fit import Rows, bootstrap_rows, fresh_model
from safemesa.phases.artefacts import load_world_model
from safemesa.phases.checkpoint import Checkpointer
from safemesa.phases.config import RunConfig
from safemesa.phases.run import RunOptions, run
from safemesa.phases.run_folder import METRIC_FIELDS

ARMS = ("carl", "carl_offline", "carl_offline_dtest")


def tiny_carl(arm: str, domain: str = "navigation2", seed: int = 7) -> RunConfig:
    config = tiny_config(arm, domain, seed)
    return replace(
        config,
        deploy=replace(config.deploy, episodes=3, chunk_steps=40),
        carl=replace(
            config.carl,
            horizon=3,
            hidden=(8,),
            weight_decay=(1e-4, 1e-4),
            batch=16,
            log_updates=40,
            source_episodes=6,
            source_epochs=1.0,
            test_log_updates=20,
        ),
    )
