"""`collect`, `meta-train`, `adapt` and `deploy`: the phases one at a time.

With the same seeds and settings they leave what `safemesa run` leaves.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from safemesa.cli.arguments import (
    Common,
    Positional,
    command_line,
    file_name,
    parse,
    parse_with_preset,
    prepare_jax,
    worker_count,
)
from safemesa.core.errors import DatasetError, OutputFolderError
from safemesa.phases.config import RESIDENT_GIB
from safemesa.phases.presets import DOMAIN_PRESETS


@dataclass(frozen=True, kw_only=True)
class CollectFlags(Common):
    """Collects the logs of the training tasks and the small log of the new robot."""

    domain: Positional[str]
    """navigation1, navigation2, maze, cartpole, halfcheetah, halfcheetah_partial, ant, or a domain
    of your own as module:attribute."""
    jobs: int | None = None
    """Processes that collect the logs of a simulated robot; default: one per core."""
    out: Path | None = None
    """Dataset folder; default data/<domain>-<preset>-<data seed>-with-test-<seed>."""


@dataclass(frozen=True, kw_only=True)
class MetaTrainFlags(Common):
    """Phase 1: learns a prior from the training logs of a dataset."""

    logs: Positional[Path]
    """Dataset folder with training logs (see `safemesa collect`)."""
    arm: str = "mesa"
    """Whose meta-learner: mesa, mesa_as_printed, mesa_metasgd or multitask."""
    out: Path = Path("prior")
    """Artefact folder of the prior."""
    memory: float = RESIDENT_GIB
    """GiB of training logs that are kept in memory; larger ones are read from their files while
    Phase 1 goes on, which is slower."""


@dataclass(frozen=True, kw_only=True)
class AdaptFlags:
    """Phase 2: specialises a prior to the log of a new robot."""

    prior: Positional[Path]
    """Folder that `safemesa meta-train` wrote."""
    log: Positional[Path]
    """Dataset folder whose test log (or only log) is the new robot's."""
    out: Path = Path("risk_model")
    """Artefact folder of the risk model."""
    seed: int | None = None
    """Order of the batches; default: the prior's seed."""
    steps: int | None = None
    """Gradient steps; default: the prior's configuration."""
    risk_limit: float | None = None
    """Risk above which the guard steps in, as `safemesa evaluate` chose it; default: the prior's
    configuration."""


@dataclass(frozen=True, kw_only=True)
class DeployFlags:
    """Phase 3: learns the task in the environment behind the guard of a risk model."""

    risk: Positional[Path]
    """Folder that `safemesa adapt` wrote."""
    domain: Positional[str]
    """Domain to deploy on, as for `safemesa run`."""
    log: Path | None = None
    """Dataset folder with the new robot's log, which stays in the replay; default: the log that
    `safemesa run` collects for this seed."""
    out: Path = Path("runs/deployment")
    """Run folder."""
    seed: int | None = None
    """Test task, task networks and noise; default: the risk model's seed."""
    episodes: int | None = None
    """Episodes; default: the risk model's configuration."""
    tensorboard: bool = False
    """Also write TensorBoard event files."""


def main(verb: str, arguments: Sequence[str]) -> None:
    """Dispatches."""
    verbs = {"collect": collect, "meta-train": meta_train, "adapt": adapt, "deploy": deploy}
    verbs[verb](verb, arguments)


def _refuse_existing(folder: Path) -> None:
    if folder.exists():
        raise OutputFolderError(f"{folder} exists already. Choose another --out, or remove it.")


def collect(verb: str, arguments: Sequence[str]) -> None:
    """Writes one dataset folder."""
    flags, config = parse_with_preset(CollectFlags, verb, arguments)
    name = f"{file_name(config.domain)}-{config.preset}-{config.data_seed}-with-test-{config.seed}"
    out = flags.out or Path("data") / name
    _refuse_existing(out)
    prepare_jax()
    from safemesa.cli.data import print_info
    from safemesa.core.locks import folder_lock
    from safemesa.domains.registry import domain as find_domain
    from safemesa.phases.collection.logs import (
        collect_test_log,
        collect_train_logs,
        warn_of_few_violations,
    )
    from safemesa.phases.progress import BarProgress

    domain, working = find_domain(config.domain), out.with_name(f".{out.name}.unfinished")

    def refuse() -> None:
        raise OutputFolderError(f"another process collects {out}. Wait for it.")

    with folder_lock(working, refuse):
        train = collect_train_logs(domain, config, working, BarProgress(), worker_count(flags.jobs))
        test = collect_test_log(domain, config)
        warn_of_few_violations(test)
        provenance = {**train.provenance, "command": command_line(verb, arguments)}
        both = replace(train, test=test.test, provenance=provenance)
        both.save(out)
    shutil.rmtree(working)
    print_info(both)
    print(f"Dataset: {out}")


def meta_train(verb: str, arguments: Sequence[str]) -> None:
    """Writes one prior; interrupted, it goes on from its last checkpoint."""
    from safemesa.datasets.offline_tasks import OfflineTasks

    first = parse(MetaTrainFlags, verb, arguments)
    data = OfflineTasks.load(first.logs)
    if not data.train:
        raise DatasetError(
            f"{first.logs} holds no training logs; Phase 1 needs some. See `safemesa collect`."
        )
    # Logs of another domain than ours get the settings of Navigation 1 unless flags change them,
    # and the risk of the policy that drove those robots, which nobody has drawn at random.
    foreign = data.domain not in DOMAIN_PRESETS
    flags, config = parse_with_preset(
        MetaTrainFlags,
        verb,
        arguments,
        domain="navigation1" if foreign else data.domain,
        next_action="logged" if foreign else None,
    )
    config = replace(config, domain=data.domain)
    _refuse_existing(flags.out)
    prepare_jax()
    from safemesa.phases.loop import ChunkLoop
    from safemesa.phases.meta_train import meta_train as run_meta_train
    from safemesa.phases.progress import BarProgress
    from safemesa.phases.storage.artefacts import save_artefact
    from safemesa.phases.storage.checkpoint import Checkpointer
    from safemesa.phases.storage.run_folder import RunFolder

    working = RunFolder(flags.out.with_name(f".{flags.out.name}.unfinished"))
    working.check(config)
    with working.lock():
        working.open(config, command_line(verb, arguments))
        saver = Checkpointer(working.checkpoints, "meta_train")
        loop = ChunkLoop("meta_train", [saver], BarProgress())
        test_logs = [data] if data.test is not None else None
        (prior,) = run_meta_train([config], data, test_logs, loop, resident_gib=flags.memory)
        notes = {
            "command": command_line(verb, arguments),
            "wall_s": loop.wall_seconds,
            "tasks": [log.name for log in data.train],
        }
        save_artefact(flags.out, prior, config, data.spaces, notes)
    shutil.rmtree(working.path)
    print(f"Learned from {len(data.train)} logs in {loop.wall_seconds:.0f} s.")
    print(f"Prior: {flags.out}")


def adapt(verb: str, arguments: Sequence[str]) -> None:
    """Writes one risk model."""
    flags = parse(AdaptFlags, verb, arguments)
    _refuse_existing(flags.out)
    prepare_jax()
    from safemesa.datasets.offline_tasks import OfflineTasks
    from safemesa.phases.adapt import adapt as run_adapt
    from safemesa.phases.collection.logs import warn_of_few_violations
    from safemesa.phases.loop import ChunkLoop
    from safemesa.phases.progress import BarProgress
    from safemesa.phases.storage.artefacts import load_prior, save_artefact

    prior, config, spaces = load_prior(flags.prior)
    data = OfflineTasks.load(flags.log)
    data.check_spaces(spaces)
    log = data.only_log()
    only = replace(data, train=(), test=replace(log, role="test"))
    warn_of_few_violations(only)
    config = config if flags.seed is None else replace(config, seed=flags.seed)
    if flags.risk_limit is not None:
        config = replace(config, risk=replace(config.risk, risk_limit=flags.risk_limit))
    loop = ChunkLoop("adapt", progress=BarProgress())
    (model,) = run_adapt([config], [prior], [only], loop, steps=flags.steps)
    notes = {
        "command": command_line(verb, arguments),
        "wall_s": loop.wall_seconds,
        # `safemesa shield export` tells the robot's user what this model has seen of that robot.
        "log": only.log_facts(),
    }
    save_artefact(flags.out, model, config, spaces, notes)
    print(f"Adapted to {log.transitions} transitions with {log.violations} violations.")
    print(f"Risk model: {flags.out}")


def deploy(verb: str, arguments: Sequence[str]) -> None:
    """Leaves a run folder, as `safemesa run` does."""
    flags = parse(DeployFlags, verb, arguments)
    prepare_jax()
    from safemesa.cli.run import print_runs, run_options
    from safemesa.domains.registry import domain as find_domain
    from safemesa.phases.run import adopt, run
    from safemesa.phases.storage.artefacts import load_risk_model

    model, config, spaces = load_risk_model(flags.risk)
    domain = find_domain(flags.domain)
    config = replace(config, domain=flags.domain)
    if flags.seed is not None:
        config = replace(config, seed=flags.seed)
    if flags.episodes is not None:
        config = replace(config, deploy=replace(config.deploy, episodes=flags.episodes))
    options = run_options(verb, arguments, Path("data"), flags.tensorboard)
    adopt(flags.out, config, domain, model, spaces, flags.log, options.command)
    print_runs(run([config], [flags.out], options), [flags.out])
