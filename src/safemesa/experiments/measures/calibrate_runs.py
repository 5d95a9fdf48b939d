"""Calibration of finished runs: their priors, adapted to held-out tasks."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from safemesa.core.errors import ConfigurationError
from safemesa.domains.base import AbstractJaxDomain
from safemesa.domains.registry import domain as find_domain
from safemesa.experiments.measures.risk_calibration import (
    CalibrationResult,
    HeldOutTask,
    calibration,
    held_out_tasks,
)
from safemesa.experiments.runs.run_records import RunRecord, scan_runs
from safemesa.guards import asks_a_critic
from safemesa.phases.adapt import uses_training_logs
from safemesa.phases.config import RunConfig
from safemesa.phases.progress import NoProgress, Progress
from safemesa.phases.storage.artefacts import Prior, load_prior
from safemesa.phases.storage.run_folder import RunFolder


def calibrate_runs(
    paths: Sequence[Path],
    *,
    tasks: int = 8,
    pairs: int = 400,
    rollouts: int = 256,
    adapt_target_rate: float | None = None,
    all_seeds: bool = False,
    progress: Progress | None = None,
) -> dict[tuple[str, str], list[CalibrationResult]]:
    """Results by (domain, preset): the prior of each arm's first run stands for the arm.

    With `all_seeds` every run's prior is asked. `adapt_target_rate` overrides Phase 2's (1
    bootstraps from the online critic).
    """
    progress = progress or NoProgress()
    truth: dict[tuple[str, float], list[HeldOutTask]] = {}
    found: dict[tuple[str, str], list[CalibrationResult]] = {}
    chosen = runs_with_critics(paths, all_seeds=all_seeds)
    progress.start("calibration", len(chosen), 0)
    for done, (config, folder) in enumerate(chosen, start=1):
        domain = compiled_domain(config.domain)
        if adapt_target_rate is not None:
            adapt = replace(config.adapt, target_rate=adapt_target_rate)
            config = replace(config, adapt=adapt)
        key = (config.domain, config.risk.gamma_risk)
        if key not in truth:
            truth[key] = held_out_tasks(
                domain, config.risk.gamma_risk, tasks=tasks, pairs=pairs, rollouts=rollouts
            )
        results = calibration(domain, config, _prior(folder), truth[key])
        found.setdefault((config.domain, config.preset), []).extend(results)
        progress.update(done)
    progress.finish()
    return found


def compiled_domain(name: str) -> AbstractJaxDomain:
    """A domain that rollouts can start from any state of.

    Raises:
        ConfigurationError: it is simulated on the host.
    """
    found = find_domain(name)
    if not isinstance(found, AbstractJaxDomain):
        raise ConfigurationError(
            f"calibration needs rollouts from any state, which {name} does not offer; it is "
            "measured on navigation1, navigation2 and maze."
        )
    return found


def runs_with_critics(
    paths: Sequence[Path], *, all_seeds: bool = False
) -> list[tuple[RunConfig, Path]]:
    """Runs of arms that have a safety critic: that of the lowest seed of each, or all of them.

    A run of an arm with a Phase 1 whose prior is not there (as after `safemesa deploy`, or where
    only numbers were kept) is left out, with a warning.

    Raises:
        ConfigurationError: there is none.
    """
    chosen: dict[tuple[str, str, str, int], tuple[RunConfig, Path]] = {}
    without: list[str] = []
    for record in sorted(scan_runs(paths).runs, key=lambda one: one.seed):
        if record.external or not asks_a_critic(record.settings["guard"]):
            continue
        if not _has_prior(record):
            without.append(str(record.path))
        else:
            own = record.seed if all_seeds else 0
            key = (record.domain, record.preset, record.arm, own)
            chosen.setdefault(key, (record.config, record.path))
    if not chosen:
        raise ConfigurationError(
            "calibration needs a run with a safety critic, and the prior that it learned; the runs "
            "given have none: they are unconstrained, or were made by `safemesa deploy`, or their "
            "artefacts are not there."
        )
    if without:
        warnings.warn(
            f"left out, as the prior that they began with is not there: {', '.join(without)}.",
            stacklevel=2,
        )
    return list(chosen.values())


def _has_prior(record: RunRecord) -> bool:
    """Whether what the run began with is known: an arm without a Phase 1 begins with nothing."""
    there = (RunFolder(record.path).prior / "manifest.json").is_file()
    return there or not uses_training_logs(record.config)


def _prior(folder: Path) -> Prior | None:
    """The run's prior; None for arms without a Phase 1."""
    prior = RunFolder(folder).prior
    return load_prior(prior)[0] if (prior / "manifest.json").is_file() else None


def table_rows(
    results: dict[tuple[str, str], list[CalibrationResult]],
) -> list[dict[str, Any]]:
    """All results as rows of plain values; NaN, which JSON does not have, becomes null."""
    return [
        {
            "domain": domain,
            "preset": preset,
            **{
                name: None if isinstance(value, float) and value != value else value
                for name, value in result.row().items()
            },
        }
        for (domain, preset), group in results.items()
        for result in group
    ]


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """The rows on the terminal."""
    table = Table(title="Risk against Monte-Carlo truth on held-out tasks")
    for name in rows[0]:
        table.add_column(name.replace("_", " "))
    for row in rows:
        table.add_row(*(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()))
    Console(width=200).print(table)
