"""A configuration as the command that gives it. Free of JAX."""

import shlex
from pathlib import Path
from typing import Any

from safemesa.experiments.arms import configure
from safemesa.phases.config import RunConfig, config_to_json

NAMED = ("arm", "domain", "preset", "seed", "data_seed", "agent", "meta_learner", "guard")
"""Fields that are no settings: they are given by name, or follow from the arm."""


def run_command(config: RunConfig, folder: Path, data_dir: Path) -> str:
    """`safemesa run ...` that carries the configuration out in `folder`."""
    words = ["safemesa", "run", config.arm, config.domain, "--preset", config.preset]
    words += ["--seed", str(config.seed)]
    words += ["--data-seed", str(config.data_seed)] if config.data_seed else []
    words += changed_flags(config)
    words += ["--out", str(folder), "--data-dir", str(data_dir)]
    return shlex.join(words)


def changed_flags(config: RunConfig) -> list[str]:
    """The flags that change the arm's preset into this configuration."""
    preset = config_to_json(configure(config.arm, config.domain, config.preset))
    words: list[str] = []
    for part, values in config_to_json(config).items():
        if part in NAMED:
            continue
        for name, value in values.items():
            if value != preset[part][name]:
                words += _flag(part, name.replace("_", "-"), value)
    return words


def _flag(part: str, name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{part}.{name}" if value else f"--{part}.no-{name}"]
    values = value if isinstance(value, tuple | list) else [value]
    return [f"--{part}.{name}", *map(str, values)]
