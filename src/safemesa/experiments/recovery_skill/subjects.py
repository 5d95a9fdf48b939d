"""Whose recovery is asked: the risk models of run folders, and of folders of `safemesa adapt`."""

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from safemesa.core.errors import CheckpointError, ConfigurationError, DatasetError
from safemesa.core.files import read_json
from safemesa.core.spaces import Spaces
from safemesa.domains.base import AbstractDomain
from safemesa.domains.registry import domain as find_domain
from safemesa.experiments.measures.run_contents import run_config
from safemesa.phases.config import SEEDS, RunConfig
from safemesa.phases.storage.artefacts import Prior, RiskModel, load_prior, load_risk_model
from safemesa.phases.storage.run_folder import RunFolder

MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class NamedModel:
    """A risk model with the phase that it is of.

    Attributes:
        name: `prior` (Phase 1), `adapted` (Phase 2) or `deployed` (Phase 3).
        limit: The risk above which its guard takes over; None while none was found.
    """

    name: str
    model: RiskModel
    limit: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """The risk models of one run, and the robot that they are asked about.

    Attributes:
        name: The folder's path from where the search began.
        seed: Decides the robot, the states and all draws.
        replay: Whether the folder is that of a run, which may have begun Phase 3.
    """

    name: str
    path: Path
    config: RunConfig
    domain: AbstractDomain
    seed: int
    models: tuple[NamedModel, ...]
    replay: bool


def find_subjects(
    paths: Sequence[Path], domain: str | None = None, seed: int | None = None
) -> list[Subject]:
    """All run folders in and below `paths`, finished or not, and the artefacts given by name.

    Args:
        paths: Run folders, folders of them, or folders of `safemesa meta-train` and `adapt`.
        domain: The simulator of the artefacts' robot, which they do not name.
        seed: Of the robot; default: each folder's own.

    A run without a risk model (unconstrained, CARL, or not yet past Phase 1) is left out, with a
    warning.

    Raises:
        ConfigurationError: nothing can be asked, the simulator is not known, or the seed is none.
        DatasetError: a path is no folder.
        CheckpointError: an artefact is damaged, or does not fit the simulator.
    """
    if seed is not None and not 0 <= seed < SEEDS:
        raise ConfigurationError(f"seed is {seed}; expected a number from 0 to {SEEDS - 1}.")
    found, without = [], []
    for root in paths:
        if not root.is_dir():
            raise DatasetError(f"{root} is no folder. Give run folders, or folders of them.")
        if (root / MANIFEST).is_file():
            found.append(_artefact(root, domain))
            continue
        for folder in _run_folders(root):
            name = (Path(root.resolve().name) / folder.relative_to(root)).as_posix()
            subject = _run(folder, name, domain)
            found.append(subject) if subject.models else without.append(name)
    if not found:
        raise ConfigurationError(
            f"no risk model in {', '.join(map(str, paths)) or 'nothing'}"
            f"{f' ({len(without)} runs have none)' if without else ''}; expected run folders with "
            "artefacts, of an arm that learns a risk, or folders that `safemesa adapt` wrote."
        )
    if without:
        warnings.warn(f"left out, without a risk model: {', '.join(without)}.", stacklevel=2)
    return found if seed is None else [replace(one, seed=seed) for one in found]


def _run_folders(root: Path) -> Iterator[Path]:
    """Folders with a `config.json`, not looking inside them for more."""
    for place, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if "config.json" in files:
            folders.clear()
            yield Path(place)


def _run(folder: Path, name: str, domain: str | None) -> Subject:
    config, place = run_config(folder), RunFolder(folder)
    if domain is not None and domain != config.domain:
        raise ConfigurationError(
            f"--domain is {domain!r}, and {folder} is a run on {config.domain!r}. --domain is for "
            "folders that `safemesa adapt` wrote; leave it out for runs."
        )
    models = []
    if (place.prior / MANIFEST).is_file():
        models.append(_named("prior", *load_prior(place.prior)))
    for kind, path in (("adapted", place.risk_model), ("deployed", place.deployed_model)):
        if (path / MANIFEST).is_file():
            models.append(_named(kind, *load_risk_model(path)))
    return Subject(
        name=name,
        path=folder,
        config=config,
        domain=_simulator(config.domain, folder),
        seed=config.seed,
        models=tuple(models),
        replay=True,
    )


def _artefact(folder: Path, domain: str | None) -> Subject:
    kind = read_json(folder / MANIFEST, error=CheckpointError).get("kind")
    given = load_prior(folder) if kind == "prior" else load_risk_model(folder)
    config, spaces = given[1:]
    if domain is None:
        raise ConfigurationError(
            f"{folder} does not say which simulator has its robot; give --domain, as for "
            "`safemesa run`."
        )
    simulated = _simulator(domain, folder)
    difference = spaces.difference(simulated.spaces)
    if difference is not None:
        raise CheckpointError(
            f"the risk model in {folder} does not fit {domain}: its {difference}. Name the domain "
            "whose logs it was learned from."
        )
    return Subject(
        name=folder.resolve().name,
        path=folder,
        config=replace(config, domain=domain),
        domain=simulated,
        seed=config.seed,
        models=(_named("prior" if kind == "prior" else "adapted", *given),),
        replay=False,
    )


def _simulator(name: str, folder: Path) -> AbstractDomain:
    try:
        return find_domain(name)
    except ConfigurationError as error:
        raise ConfigurationError(f"the robot of {folder} cannot be simulated: {error}") from error


def _named(name: str, loaded: Prior | RiskModel, config: RunConfig, spaces: Spaces) -> NamedModel:
    del spaces
    model = loaded.model if isinstance(loaded, Prior) else loaded
    return NamedModel(name=name, model=model, limit=own_limit(model, config))


def own_limit(model: RiskModel, config: RunConfig) -> float | None:
    """The risk above which the guard of a run takes over; None where it is yet to be found."""
    if model.limit is not None:
        return float(model.limit)
    return config.risk_limit
