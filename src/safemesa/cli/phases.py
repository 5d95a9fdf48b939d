"""`collect`, `meta-train`, `adapt` and `deploy`: the phases one at a time.

With the same seeds and settings they leave what `safemesa run` leaves.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro

from safemesa.cli.arguments import (
    DOMAIN_HELP,
    SECTIONS,
    Common,
    Positional,
    check_jobs,
    command_line,
    current_spelling,
    parse_before_presets,
    parse_onto,
    parse_with_preset,
    prepare_jax,
    sections_of,
    with_horizon,
    worker_count,
)
from safemesa.core.errors import (
    CheckpointError,
    ConfigurationError,
    DatasetError,
    OutputFolderError,
)
from safemesa.core.files import file_name, read_json, sha256, write_json
from safemesa.core.outputs import check_parent
from safemesa.learners.monitor.config import MonitorConfig
from safemesa.phases.config import RESIDENT_GIB, RunConfig, config_from_json
from safemesa.phases.presets import DOMAIN_PRESETS
from safemesa.phases.presets.own_logs import for_own_logs

T = TypeVar("T")
OF_META_TRAIN = (*sections_of("meta_train"), "guard_settings", "monitor")
"""What Phase 1 reads; the guard's settings, which some guards bring to the safety loss; and those
of the monitor of a shield, which no run of Phase 3 reads."""

if TYPE_CHECKING:
    from safemesa.datasets.offline_tasks import OfflineTasks
    from safemesa.learners.monitor.tracker import Tracker


@dataclass(frozen=True, kw_only=True)
class CollectFlags(Common):
    """Collects the logs of the training tasks and the small log of the new robot."""

    domain: Annotated[Positional[str], tyro.conf.arg(metavar="DOMAIN", help=DOMAIN_HELP)]
    jobs: int | None = None
    """Processes that collect the logs of a simulated robot; default: one per core."""
    out: Path | None = None
    """Dataset folder; default data/<domain>-<preset>-<data seed>-with-test-<seed>."""


@dataclass(frozen=True, kw_only=True)
class MetaTrainFlags(Common):
    """Phase 1: learns a prior from the training logs of a dataset."""

    logs: Annotated[Positional[Path], tyro.conf.arg(metavar="LOGS")]
    """Dataset folder with training logs (see `safemesa collect`)."""
    arm: str | None = None
    """Whose method: safemesa, mesa, mesa_as_printed, mesa_metasgd or multitask; default: safemesa
    for logs of your own, mesa for those of our domains."""
    out: Path = Path("prior")
    """Artefact folder of the prior."""
    memory: float = RESIDENT_GIB
    """GiB of training logs that are kept in memory; larger ones are read from their files while
    Phase 1 goes on, which is slower."""


@dataclass(frozen=True, kw_only=True)
class AdaptFlags:
    """Phase 2: specialises a prior to the log of a new robot.

    Settings that are not given are those of the prior.
    """

    prior: Annotated[Positional[Path], tyro.conf.arg(metavar="PRIOR")]
    """Folder that `safemesa meta-train` wrote."""
    log: Annotated[Positional[Path], tyro.conf.arg(metavar="LOG")]
    """Dataset folder whose test log (or only log) is the new robot's."""
    out: Path = Path("risk_model")
    """Artefact folder of the risk model."""
    seed: int | None = None
    """Order of the batches; default: the prior's seed."""


@dataclass(frozen=True, kw_only=True)
class DeployFlags:
    """Phase 3: learns the task in the environment behind the guard of a risk model.

    Settings that are not given are those of the risk model.
    """

    model: Annotated[Positional[Path], tyro.conf.arg(metavar="RISK")]
    """Folder that `safemesa adapt` wrote."""
    domain: Annotated[Positional[str], tyro.conf.arg(metavar="DOMAIN")]
    """Domain to deploy on, as for `safemesa run`."""
    log: Path | None = None
    """Dataset folder with the new robot's log, which stays in the replay; default: the log that
    `safemesa run` collects for this seed."""
    out: Path = Path("runs/deployment")
    """Run folder."""
    seed: int | None = None
    """Test task, task networks and noise; default: the risk model's seed."""
    tensorboard: bool = False
    """Also write TensorBoard event files."""


def main(verb: str, arguments: Sequence[str]) -> None:
    """Dispatches."""
    verbs = {"collect": collect, "meta-train": meta_train, "adapt": adapt, "deploy": deploy}
    verbs[verb](verb, arguments)


def _refuse_existing(folder: Path) -> None:
    check_parent(folder)
    if os.path.lexists(folder):
        raise OutputFolderError(f"{folder} exists already. Choose another --out, or remove it.")


def collect(verb: str, arguments: Sequence[str]) -> None:
    """Writes one dataset folder."""
    flags, config = parse_with_preset(CollectFlags, verb, arguments, sections_of("collect"))
    name = f"{file_name(config.domain)}-{config.preset}-{config.data_seed}-with-test-{config.seed}"
    out = flags.out or Path("data") / name
    _refuse_existing(out)
    check_jobs(flags.jobs)
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
    from safemesa.datasets.format import MANIFEST_FILE
    from safemesa.datasets.offline_tasks import OfflineTasks

    arguments = current_spelling(verb, arguments)
    first = parse_before_presets(MetaTrainFlags, verb, arguments, SECTIONS)
    if {"-h", "--help"} & set(arguments) and not (first.logs / MANIFEST_FILE).is_file():
        # Without logs, the defaults of the first domain.
        parse_with_preset(MetaTrainFlags, verb, arguments, OF_META_TRAIN)
    data = OfflineTasks.load(first.logs)
    if not data.train:
        raise DatasetError(
            f"{first.logs} holds no training logs; Phase 1 needs some. See `safemesa collect`."
        )
    flags, config = _meta_train_config(verb, arguments, data)
    if not flags.memory >= 0.0:
        raise ConfigurationError(f"--memory is {flags.memory}; expected 0 or more GiB.")
    _check_monitor(config.monitor)
    _refuse_existing(flags.out)
    prepare_jax()
    from safemesa.phases.adapt import uses_training_logs
    from safemesa.phases.loop import ChunkLoop
    from safemesa.phases.meta_train import meta_train as run_meta_train
    from safemesa.phases.progress import BarProgress
    from safemesa.phases.same_signals import units_of
    from safemesa.phases.storage.artefacts import FLEET_MONITOR, save_artefact
    from safemesa.phases.storage.checkpoint import Checkpointer
    from safemesa.phases.storage.run_folder import RunFolder
    from safemesa.phases.storage.seen import save_seen, seen_in_logs

    if config.agent != "sac" or not uses_training_logs(config):
        raise ConfigurationError(
            f"--arm is {flags.arm!r}, which learns no prior of risk from training logs. Take "
            "safemesa, mesa, mesa_as_printed, mesa_metasgd or multitask; `safemesa run` runs any "
            "arm."
        )
    working = RunFolder(flags.out.with_name(f".{flags.out.name}.unfinished"))
    working.check(config)
    with working.lock():
        working.open(config, command_line(verb, arguments))
        _check_same_logs(working.path, first.logs)
        if config.monitor.enabled:
            # First, since it may refuse the logs.
            _fit_monitor(working.path / FLEET_MONITOR, config, data)
        test_logs = [data] if data.test is not None else None
        saver = Checkpointer(working.checkpoints, "meta_train")
        loop = ChunkLoop("meta_train", [saver], BarProgress())
        (prior,) = run_meta_train([config], data, test_logs, loop, resident_gib=flags.memory)
        notes = {
            "command": command_line(verb, arguments),
            "wall_s": loop.wall_seconds,
            "tasks": [log.name for log in data.train],
            "units": units_of(data.provenance),
        }
        save_seen(flags.out, seen_in_logs(data.train))
        if config.monitor.enabled:
            os.replace(working.path / FLEET_MONITOR, flags.out / FLEET_MONITOR)
        save_artefact(flags.out, prior, config, data.spaces, notes)
    shutil.rmtree(working.path)
    print(f"Learned from {len(data.train)} logs in {loop.wall_seconds:.0f} s.")
    print(f"Prior: {flags.out}")


def _check_monitor(given: MonitorConfig) -> None:
    """Refuses settings of a monitor that nothing would read."""
    changed = [one.name for one in fields(given) if getattr(given, one.name) != one.default]
    options = [f"--monitor.{name.replace('_', '-')}" for name in changed if name != "enabled"]
    if options and not given.enabled:
        raise ConfigurationError(
            f"{options[0]} is given without --monitor.enabled, and no monitor would be learned. "
            "Give that, too, or leave it out."
        )
    answers = [name for name in ("tighten", "adapt_again", "forget") if name in changed]
    if answers:
        raise ConfigurationError(
            f"--monitor.{answers[0].replace('_', '-')} is of `safemesa run`. What a shield does on "
            "an alarm is set where it is exported (`shield export --dynamics-changed`), and around "
            "learning agents by OnlineRisk's adapt_again. Leave it out."
        )


def _fit_monitor(folder: Path, config: RunConfig, data: "OfflineTasks") -> None:
    """Phase 1 of the monitor that a shield may carry, unless it is done already."""
    from safemesa.phases.monitoring import fit_fleet_monitor, shield_log_rows
    from safemesa.phases.storage.artefacts import save_artefact

    if (folder / "manifest.json").is_file():
        return
    fleet, threshold = fit_fleet_monitor(
        config.monitor, data, shield_log_rows(data), config.data_seed, renews=False
    )
    notes = {"threshold": threshold._asdict()}
    save_artefact(folder, fleet, config, data.spaces, notes)
    hourly = 3600.0 / data.spaces.dt
    print(
        f"Monitor: alarms where its statistic exceeds {threshold.value:.3g}, for "
        f"{threshold.rate * hourly:.3g} false alarms in an hour (other fleets of "
        f"{threshold.episodes} robots: {threshold.low * hourly:.2g} to "
        f"{threshold.high * hourly:.2g})."
    )


def _meta_train_config(
    verb: str, arguments: Sequence[str], data: "OfflineTasks"
) -> tuple[MetaTrainFlags, RunConfig]:
    """The settings of the domain that the logs are of, or those for logs of one's own."""
    # A simulated domain of the user's: `module:attribute`, with the settings of HalfCheetah.
    collected = data.provenance.get("domain")
    simulated = collected if isinstance(collected, str) and ":" in collected else None
    if simulated or data.domain in DOMAIN_PRESETS:
        flags, config = parse_with_preset(
            MetaTrainFlags, verb, arguments, OF_META_TRAIN, domain=simulated or data.domain
        )
        return flags, _looking_ahead(config, data)
    violations = sum(log.violations for log in data.train)
    share = violations / sum(log.transitions for log in data.train)
    # The networks, rates and sizes of Navigation 1.
    flags, config = parse_with_preset(
        MetaTrainFlags,
        verb,
        arguments,
        OF_META_TRAIN,
        arm="safemesa",
        # Its own domain, so that a horizon in seconds is not held to Navigation's steps.
        change=lambda config: replace(for_own_logs(config, share), domain=data.domain),
    )
    config = _looking_ahead(config, data)
    fraction = config.sampling.violation_fraction
    if fraction is not None:
        print(
            f"{share:.2%} of the training rows violate; {fraction:.0%} of the rows of each batch "
            "are such (--sampling.violation-fraction; None draws uniformly)."
        )
    return flags, replace(config, domain=data.domain)


def _looking_ahead(config: RunConfig, data: "OfflineTasks") -> RunConfig:
    """The configuration with the horizon that was asked for, or that the logs suggest."""
    dt, asked = data.spaces.dt, config.risk.horizon
    suggests = config.guard == "takeover" and data.domain not in DOMAIN_PRESETS
    if asked is None and not suggests:
        return config
    from safemesa.phases.horizon import suggested_horizon

    suggested = suggested_horizon(data)
    horizon = suggested if asked is None else asked
    config = replace(config, risk=replace(config.risk, horizon=horizon))
    config = with_horizon(config, dt)
    print(
        f"The risk looks {horizon:.3g} s ahead ({horizon / dt:.0f} steps of {dt:g} s, gamma_risk "
        f"{config.risk.gamma_risk:.4g})"
        + ("." if asked is not None else ": so long this fleet's motion lasts. Is that how long a ")
        + (
            ""
            if asked is not None
            else "robot needs to get out of trouble? If not: --risk.horizon."
        )
    )
    if horizon < 0.5 * suggested:
        print(
            f"WARNING: this fleet's motion lasts about {suggested:.3g} s. A risk that looks "
            f"{horizon:.3g} s ahead sees an accident when it can hardly be helped any more."
        )
    return config


def _check_same_logs(working: Path, logs: Path) -> None:
    """A checkpoint of other logs must not be gone on from."""
    from safemesa.datasets.format import MANIFEST_FILE

    file, record = working / "logs.json", {"manifest_sha256": sha256(logs / MANIFEST_FILE)}
    if not file.is_file():
        write_json(file, record)
    elif read_json(file, error=OutputFolderError) != record:
        raise OutputFolderError(
            f"{working} was left by an interrupted run on other logs than {logs}. Give those logs, "
            "or remove it to begin anew."
        )


def _parse_after(
    artefact: str, kind: type[T], verb: str, arguments: Sequence[str], sections: Sequence[str]
) -> tuple[T, RunConfig]:
    """Flags whose defaults are the settings of the artefact that one of them names.

    Raises:
        CheckpointError: there is none.
    """
    words = current_spelling(verb, arguments)
    first = parse_before_presets(kind, verb, words, sections)
    manifest = getattr(first, artefact) / "manifest.json"
    if {"-h", "--help"} & set(words) and not manifest.is_file():
        return parse_onto(kind, verb, words, RunConfig(), first, sections)
    stored = read_json(manifest, error=CheckpointError).get("config")
    try:
        config = config_from_json(RunConfig, stored if isinstance(stored, dict) else {})
    except ConfigurationError as error:
        raise CheckpointError(f"{manifest} is damaged: {error}") from error
    return parse_onto(kind, verb, words, config, first, sections)


def adapt(verb: str, arguments: Sequence[str]) -> None:
    """Writes one risk model."""
    sections = (*sections_of("adapt"), "monitor")
    flags, config = _parse_after("prior", AdaptFlags, verb, arguments, sections)
    _refuse_existing(flags.out)
    prepare_jax()
    from safemesa.datasets.offline_tasks import OfflineTasks
    from safemesa.datasets.task_log import violations_in_words
    from safemesa.phases.adapt import adapt as run_adapt, adaptation_steps
    from safemesa.phases.collection.logs import warn_of_few_violations
    from safemesa.phases.loop import ChunkLoop
    from safemesa.phases.progress import BarProgress
    from safemesa.phases.same_signals import check_same_signals, units_of
    from safemesa.phases.storage.artefacts import (
        MONITOR,
        load_prior,
        read_manifest,
        save_artefact,
    )
    from safemesa.phases.storage.seen import load_seen, save_seen, seen_in_logs, together
    from safemesa.phases.takeover_limit import find_limit

    prior, _, spaces = load_prior(flags.prior)
    data = OfflineTasks.load(flags.log)
    data.check_spaces(spaces)
    known = read_manifest(flags.prior, "prior")[2]
    check_same_signals(data, prior.model.normaliser, units_of(known))
    log = data.only_log()
    only = replace(data, train=(), test=replace(log, role="test"))
    warn_of_few_violations(only)
    # First, since it may refuse the log.
    monitor = _adapted_monitor(flags.prior, config, only) if config.monitor.enabled else None
    loop = ChunkLoop("adapt", progress=BarProgress())
    (model,) = run_adapt([config], [prior], [only], loop)
    found = None
    if config.guard == "takeover" and config.risk_limit is None:
        found = find_limit(model, config, log, spaces)
    notes = {
        "command": command_line(verb, arguments),
        "wall_s": loop.wall_seconds,
        # `safemesa shield export` tells the robot's user what this model has seen of that robot.
        "log": only.log_facts(),
        "found_limit": None if found is None else found.notes(),
    }
    of_fleet = load_seen(flags.prior, spaces.obs_size + spaces.action_size)
    if of_fleet is not None:
        save_seen(flags.out, together([of_fleet, seen_in_logs((log,))]))
    if monitor is not None:
        save_artefact(flags.out / MONITOR, monitor[0], config, spaces, monitor[1])
    save_artefact(flags.out, model, config, spaces, notes)
    print(
        f"Adapted in {adaptation_steps(config)} steps to {log.transitions} transitions with "
        f"{violations_in_words(log.violation_events, log.violations)}."
    )
    if found is not None:
        print(
            f"Risk limit: {found.limit:.3g}, just above what the critic says of {found.states} "
            f"calm states of the {found.source} that the recovery holds (median "
            f"{found.quantiles['0.5']:.3g}; other logs of this size: {found.interval[0]:.3g} to "
            f"{found.interval[1]:.3g}). `safemesa evaluate` shows how early it warns."
        )
        if found.is_uncertain:
            print(
                "WARNING: this log does not settle the limit. A factor of two beside the right one "
                "a shield overrides everything or saves nothing, so log more calm episodes of this "
                "robot, or try the shield in monitor mode first."
            )
        if found.tells_little:
            print(
                "WARNING: the critic says nearly the same of all calm states, so that a takeover "
                "may come too late. Try more --meta.iterations of meta-train, and compare by "
                "`safemesa evaluate`."
            )
    print(f"Risk model: {flags.out}")


def _adapted_monitor(
    prior: Path, config: RunConfig, log: "OfflineTasks"
) -> "tuple[Tracker, dict[str, Any]]":
    """Phase 2 of the monitor that a shield may carry, and the notes of Phase 1.

    Raises:
        ConfigurationError: the prior has none, or one of other settings.
        DatasetError: the log is too short.
    """
    from safemesa.core.streams import Stream, root_key
    from safemesa.phases.monitoring import Fitting, fleet_template, monitor_rows
    from safemesa.phases.storage.artefacts import (
        FLEET_MONITOR,
        load_fleet_monitor,
        read_manifest,
    )

    folder = prior / FLEET_MONITOR
    if not folder.is_dir():
        raise ConfigurationError(
            f"{prior} has no monitor. Make it with --monitor.enabled, or leave the monitor out "
            "here, too (--monitor.no-enabled)."
        )
    made, _, notes = read_manifest(folder, FLEET_MONITOR)
    if made.monitor != config.monitor:
        raise ConfigurationError(
            "the threshold of this monitor was found with other --monitor settings than are given "
            "here. Give them to `safemesa meta-train`, and leave them out here."
        )
    spaces = log.spaces
    fleet = load_fleet_monitor(folder, fleet_template(config.monitor, spaces))
    fitting = Fitting(config=config.monitor, spaces=spaces)
    rows = monitor_rows(log.only_log(), spaces)
    return fitting.begin(fleet, rows, 0, root_key(config.seed, Stream.MONITOR_LOG)), notes


def deploy(verb: str, arguments: Sequence[str]) -> None:
    """Leaves a run folder, as `safemesa run` does."""
    flags, config = _parse_after("model", DeployFlags, verb, arguments, sections_of("deploy"))
    prepare_jax()
    from safemesa.cli.run_arm import print_runs, run_options
    from safemesa.domains.registry import domain as find_domain
    from safemesa.phases.run import adopt, run
    from safemesa.phases.storage.artefacts import load_risk_model
    from safemesa.phases.storage.run_folder import RunFolder
    from safemesa.phases.storage.seen import load_seen, save_seen

    model, _, spaces = load_risk_model(flags.model)
    domain = find_domain(flags.domain)
    # The model's monitor is for its shield: it has a threshold for a monitor that learns nothing.
    watched = replace(config.monitor, enabled=False)
    config = replace(config, domain=flags.domain, monitor=watched)
    options = run_options(verb, arguments, Path("data"), flags.tensorboard)
    adopt(flags.out, config, domain, model, spaces, flags.log, options.command)
    seen = load_seen(flags.model, spaces.obs_size + spaces.action_size)
    if seen is not None:
        save_seen(RunFolder(flags.out).risk_model, seen)
    print_runs(run([config], [flags.out], options), [flags.out])
