"""`collect`, `meta-train`, `adapt` and `deploy`: the phases one at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from safemesa.cli.arguments import (
    Common,
    Positional,
    command_line,
    parse,
    parse_with_preset,
    prepare_jax,
)
from safemesa.core.errors import ConfigurationError, OutputFolderError


@dataclass(frozen=True, kw_only=True)
class CollectFlags(Common):
    """Collects the logs of the training tasks and the small log of the new robot."""

    domain: Positional[str]
    """navigation1 or navigation2."""
    out: Path | None = None
    """Dataset folder; default data/<domain>-<preset>-<data seed>-with-test-<seed>."""


@dataclass(frozen=True, kw_only=True)
class MetaTrainFlags(Common):
    """Phase 1: learns a prior from the training logs of a dataset."""

    data: Positional[Path]  # type: ignore[assignment]
    """Dataset folder with training logs (see `safemesa collect`)."""
    arm: str = "mesa"
    """Whose meta-learner: mesa, mesa_as_printed, mesa_metasgd or multitask."""
    out: Path = Path("prior")
    """Artefact folder of the prior."""


@dataclass(frozen=True, kw_only=True)
class AdaptFlags:
    """Phase 2: specialises a prior to the log of a new robot."""

    prior: Positional[Path]
    """Folder that `safemesa meta-train` wrote."""
    log: Positional[Path]
    """Dataset folder whose test log (or only log) is the new robot's."""
    out: Path = Path("risk_model")
    """Artefact folder of the risk model."""
    seed: int = 0
    """Order of the batches."""
    steps: int | None = None
    """Gradient steps; default: the prior's configuration."""


@dataclass(frozen=True, kw_only=True)
class DeployFlags:
    """Phase 3: learns the task in the environment behind the guard of a risk model."""

    risk: Positional[Path]
    """Folder that `safemesa adapt` wrote."""
    domain: Positional[str]
    """Domain to deploy on."""
    log: Path | None = None
    """Dataset folder with the new robot's log, which stays in the replay."""
    out: Path = Path("deployment")
    """Run folder."""
    seed: int = 0
    """Test task, task networks and noise; the log must be of the same seed's task."""
    episodes: int | None = None
    """Episodes; default: the risk model's configuration."""


def main(verb: str, arguments: Sequence[str]) -> None:
    """Dispatches."""
    {"collect": collect, "meta-train": meta_train, "adapt": adapt, "deploy": deploy}[verb](
        verb, arguments
    )


def _refuse_existing(folder: Path) -> None:
    if folder.exists():
        raise OutputFolderError(f"{folder} exists already. Choose another --out, or remove it.")


def collect(verb: str, arguments: Sequence[str]) -> None:
    """Writes one dataset folder."""
    flags, config = parse_with_preset(CollectFlags, verb, arguments, "mesa", None)
    name = f"{config.domain}-{config.preset}-{config.data_seed}-with-test-{config.seed}"
    out = flags.out or Path("data") / name
    _refuse_existing(out)
    prepare_jax()
    from safemesa.cli.data import print_info
    from safemesa.phases.collect import collect_test, collect_train
    from safemesa.phases.progress import BarProgress
    from safemesa.phases.run import jax_domain, warn_of_few_violations

    domain, progress = jax_domain(config.domain), BarProgress()
    progress.start("collect", config.data.train_tasks, 0)
    train = collect_train(domain, config.data, config.data_seed, lambda i, _: progress.update(i))
    progress.finish()
    test = collect_test(domain, config.data, config.seed)
    warn_of_few_violations(test)
    provenance = {**train.provenance, "command": command_line(verb, arguments)}
    both = replace(train, test=test.test, provenance=provenance)
    both.save(out)
    print_info(both)
    print(f"Dataset: {out}")


def meta_train(verb: str, arguments: Sequence[str]) -> None:
    """Writes one prior."""
    raise ConfigurationError("not parsed")


def adapt(verb: str, arguments: Sequence[str]) -> None:
    """Writes one risk model."""
    flags = parse(AdaptFlags, verb, arguments)
    _refuse_existing(flags.out)
    prepare_jax()
    from safemesa.datasets.offline_tasks import OfflineTasks
    from safemesa.phases.adapt import adapt as run_adapt
    from safemesa.phases.artefacts import load_prior, save_artefact
    from safemesa.phases.loop import ChunkLoop
    from safemesa.phases.progress import BarProgress
    from safemesa.phases.run import warn_of_few_violations

    prior, config, spaces = load_prior(flags.prior)
    data = OfflineTasks.load(flags.log)
    data.check_spaces(spaces)
    log = data.only_log()
    only = replace(data, train=(), test=replace(log, role="test"))
    warn_of_few_violations(only)
    config = replace(config, seed=flags.seed)
    loop = ChunkLoop("adapt", progress=BarProgress())
    (model,) = run_adapt([config], [prior], [only], loop, steps=flags.steps)
    notes = {"command": command_line(verb, arguments), "wall_s": loop.wall_seconds}
    save_artefact(flags.out, model, config, spaces, notes)
    print(f"Adapted to {log.transitions} transitions with {log.violations} violations.")
    print(f"Risk model: {flags.out}")
