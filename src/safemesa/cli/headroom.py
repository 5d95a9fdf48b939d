"""`safemesa headroom DOMAIN ...`: where is there room for adapting the critic?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from safemesa.cli.arguments import Positional, parse, prepare_jax, worker_count
from safemesa.core.errors import ConfigurationError
from safemesa.core.outputs import check_outputs

if TYPE_CHECKING:
    from safemesa.experiments.headroom.measure_headroom import HeadroomFiles


@dataclass(frozen=True, kw_only=True)
class HeadroomFlags:
    """Compares unadapted and adapted critics with oracles, before first violations.

    What is in --out is not measured again; without a domain only its tables are written anew.
    """

    domains: Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="[DOMAIN ...]")] = ()
    """navigation1, navigation2, maze, cartpole, halfcheetah, halfcheetah_partial, ant, or domains
    of your own as module:attribute."""
    preset: str = "cpu"
    """`paper`, `cpu` or `quick`."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Test tasks, test logs and networks; critics are paired by seed."""
    more_arms: tuple[str, ...] = ("mesa_as_printed",)
    """Arms whose critics are asked beside those of MESA, Multi-Task and RRL, without Phase 3."""
    runs: tuple[Path, ...] = ()
    """Folders of finished runs to use; runs of other settings in them are left aside."""
    runs_dir: Path = Path("runs")
    """Where missing runs are made, as `safemesa run` does."""
    data_dir: Path = Path("data")
    """Where the training logs are kept."""
    jobs: int | None = None
    """Processes that collect the training logs of a simulated robot; default: one per core."""
    out: Path = Path("headroom")
    """Folder for headroom.jsonl, escapes.jsonl and headroom.md."""


def main(verb: str, arguments: Sequence[str]) -> None:
    """Measures what is missing and writes the tables."""
    flags = parse(HeadroomFlags, verb, arguments)
    prepare_jax()
    from safemesa.core.files import write_atomic
    from safemesa.experiments.headroom.headroom_tables import headroom_markdown, page_tables
    from safemesa.experiments.headroom.measure_headroom import HeadroomFiles

    files = HeadroomFiles(folder=flags.out)
    if not files.critics() and not files.escapes():
        check_outputs(flags.out, ("headroom.md", "headroom.jsonl", "escapes.jsonl"))
    _measure(flags, files)
    critics, escaped = files.critics(), files.escapes()
    if not critics:
        raise ConfigurationError(
            f"{flags.out} holds no measurements. Name a domain, as in `safemesa headroom "
            "navigation1`, or give the folder of earlier ones as --out."
        )
    write_atomic(flags.out / "headroom.md", headroom_markdown(critics, escaped).encode())
    print(page_tables(critics, escaped))
    print(f"All tables: {flags.out / 'headroom.md'}")


def _measure(flags: HeadroomFlags, files: "HeadroomFiles") -> None:
    """All domains and seeds that are not there yet; unknown ones are refused before any."""
    from safemesa.experiments.headroom.measure_headroom import Workplace, configurations, measure
    from safemesa.experiments.runs.run_records import find_runs
    from safemesa.phases.progress import BarProgress

    if not flags.domains:
        return
    if not flags.seeds or min(flags.seeds) < 0:
        raise ConfigurationError(f"--seeds is {flags.seeds}; expected numbers of 0 or more.")
    units = [
        configurations(name, flags.preset, seed, flags.more_arms)
        for name in flags.domains
        for seed in flags.seeds
    ]
    place = Workplace(
        found=find_runs(flags.runs) if flags.runs else (),
        runs_dir=flags.runs_dir,
        data_dir=flags.data_dir,
        jobs=worker_count(flags.jobs),
        progress=BarProgress(),
    )
    for configs in units:
        if not files.has(configs["multitask"]):
            files.add(*measure(configs, place))
