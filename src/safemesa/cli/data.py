"""`safemesa data`: import, export, describe and examine datasets."""

import contextlib
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from safemesa.cli.arguments import Positional, command_line, parse
from safemesa.core.errors import ConfigurationError, DatasetError
from safemesa.core.outputs import check_output
from safemesa.experiments.paper.paper_logs import PAPER_LOGS

if TYPE_CHECKING:
    from safemesa.datasets.findings import Findings
    from safemesa.datasets.offline_tasks import OfflineTasks


EXAMPLES = 3
"""Places of each kind of defect that are shown."""
LONGEST_MOMENT = 1000
"""Rows before a violation that fit into a picture."""


@dataclass(frozen=True, kw_only=True)
class InfoFlags:
    """Prints a dataset's tasks: transitions, violations, episodes, return."""

    folder: Annotated[Positional[Path], tyro.conf.arg(metavar="DATA")]
    """Dataset folder."""
    json: Path | None = None
    """Also write the numbers to this JSON file."""


@dataclass(frozen=True, kw_only=True)
class ImportFlags:
    """Turns logs (CSV, Parquet, NPZ, HDF5, Minari, ROS 2, MCAP, ULog, LeRobot) into one dataset."""

    sources: Annotated[Positional[tuple[Path, ...]], tyro.conf.arg(metavar="SOURCES ...")]
    """Files, or folders that contain some. Every file is a task unless the map names a column."""
    map: Path | None = None
    """TOML or JSON: which columns are observations, actions and cost (docs/import_csv.md)."""
    out: Path = Path("dataset")
    """Dataset folder to write."""
    test: str | None = None
    """The task that is the new robot."""
    details: bool = False
    """Print every finding, and not a table of their kinds."""


@dataclass(frozen=True, kw_only=True)
class SniffFlags:
    """Proposes the map of logs: what it guesses has a reason, what only you know is asked."""

    sources: Annotated[Positional[tuple[Path, ...]], tyro.conf.arg(metavar="SOURCES ...")]
    """Files, or folders that contain some, as `data import` reads them."""
    out: Path = Path("map.toml")
    """TOML file to write."""
    overwrite: bool = False
    """Replace a map that exists."""
    details: bool = False
    """Print every finding, and not a table of their kinds."""


@dataclass(frozen=True, kw_only=True)
class ExportFlags:
    """Writes a dataset as Minari folders or DSRL files, one per task."""

    folder: Annotated[Positional[Path], tyro.conf.arg(metavar="DATA")]
    """Dataset folder."""
    format: str = "minari"
    """`minari` or `dsrl`."""
    out: Path = Path("exported")
    """Folder to write."""


@dataclass(frozen=True, kw_only=True)
class DoctorFlags:
    """Names every defect of a dataset or of logs, and says whether the data suffice."""

    paths: Annotated[Positional[tuple[Path, ...]], tyro.conf.arg(metavar="PATHS ...")]
    """A dataset folder, or the files that `data import` would read."""
    map: Path | None = None
    """The import map, where the paths are logs."""
    test: str | None = None
    """The task that is the new robot, where the paths are logs."""
    json: Path | None = None
    """Also write everything to this JSON file."""
    details: bool = False
    """Print every finding, and not a table of their kinds."""


@dataclass(frozen=True, kw_only=True)
class ReportFlags:
    """Draws a dataset as one HTML file: robots, ranges, and the moments before violations."""

    folder: Annotated[Positional[Path], tyro.conf.arg(metavar="DATA")]
    """Dataset folder."""
    out: Path = Path("data_report.html")
    """HTML file to write."""
    before: int = 30
    """Rows before each violation that are drawn."""


def main(verb: str, arguments: Sequence[str]) -> None:
    """Dispatches `data sniff|import|export|info|doctor|report`."""
    verbs: dict[str, tuple[Callable[[str, Sequence[str]], None], str]] = {
        "sniff": (sniff, "SOURCE... --out MAP: proposes a map, and asks what only you know"),
        "import": (import_data, "SOURCE... --map MAP --out DIR: logs become a dataset"),
        "export": (export_data, "DATA --format minari|dsrl --out DIR: for other programs"),
        "info": (info, "DATA: what a dataset holds"),
        "doctor": (doctor, "DATA or SOURCE... --map MAP: what is wrong, and does it suffice?"),
        "report": (report, "DATA --out FILE: robots, ranges and violations as one HTML file"),
    }
    if arguments and arguments[0] in ("-h", "--help"):
        print("usage: safemesa data VERB ...\n")
        for name, (_, text) in verbs.items():
            print(f"  {name:<8}{text}")
        raise SystemExit(0)
    given = arguments[0] if arguments else "nothing"
    if given not in verbs:
        raise ConfigurationError(
            f"`safemesa data` got {given!r}; expected one of {', '.join(verbs)}."
        )
    verbs[given][0](f"{verb} {given}", arguments[1:])


def info(verb: str, arguments: Sequence[str]) -> None:
    """`data info`."""
    flags = parse(InfoFlags, verb, arguments)
    check_output(flags.json)
    from safemesa.datasets.offline_tasks import OfflineTasks

    data = OfflineTasks.load(flags.folder)
    print_info(data)
    if flags.json is not None:
        from safemesa.core.files import write_json

        record = {
            "command": command_line("data", ["info", *arguments]),
            "domain": data.domain,
            "tasks": data.summary_rows(),
            "provenance": dict(data.provenance),
        }
        write_json(flags.json, record)
        print(f"Numbers: {flags.json}")


def sniff(verb: str, arguments: Sequence[str]) -> None:
    """`data sniff`."""
    flags = parse(SniffFlags, verb, arguments)
    from safemesa.core.errors import OutputFolderError
    from safemesa.core.files import write_atomic
    from safemesa.datasets.sniff.check import check
    from safemesa.datasets.sniff.propose import propose

    if flags.out.suffix != ".toml":
        raise ConfigurationError(
            f"--out is {flags.out}, expected a name that ends in .toml, which has comments."
        )
    if flags.out.exists() and not flags.overwrite:
        raise OutputFolderError(
            f"{flags.out} exists already, and may hold your answers. Choose another --out, or give "
            "--overwrite."
        )
    proposal = propose(flags.sources)
    write_atomic(flags.out, proposal.text.encode())
    print(proposal.summary)
    checked = check(flags.sources, proposal)
    print(checked.heading)
    if checked.findings is not None:
        print_findings(checked.findings, flags.details)
        if not len(checked.findings):
            print("No defects found.")
    print(f"Map: {flags.out}")
    for line, question in proposal.questions:
        print(f"  line {line}: {question.text}")
    command = shlex.join(["safemesa", "data", "doctor", *map(str, flags.sources)])
    answers = (
        "Answer these questions there, each in its line; then" if proposal.questions else "Next"
    )
    print(f"{answers}: {command} --map {shlex.quote(str(flags.out))}")


def import_data(verb: str, arguments: Sequence[str]) -> None:
    """`data import`."""
    flags = parse(ImportFlags, verb, arguments)
    from safemesa.datasets.importers.find import find_sources
    from safemesa.datasets.importers.import_map import ImportMap, read_map
    from safemesa.datasets.importers.stream import total_bytes
    from safemesa.datasets.importers.write import import_logs, with_test
    from safemesa.datasets.offline_tasks import OfflineTasks

    mapping = with_test(ImportMap() if flags.map is None else read_map(flags.map), flags.test)
    paths = find_sources(flags.sources)
    with _progress("import", total_bytes(paths)) as on_rows:
        command = command_line("data", ["import", *arguments])
        result = import_logs(
            flags.sources, mapping, flags.out, command=command, on_rows=on_rows, on_robots=print
        )
    print_info(OfflineTasks.load(result.folder, verify=False))
    print_findings(result.findings, flags.details)
    print(f"No errors. `safemesa data doctor {result.folder}` looks for more than an import does.")
    print(f"Dataset: {result.folder} ({result.transitions} transitions, {result.tasks} tasks)")


def export_data(verb: str, arguments: Sequence[str]) -> None:
    """`data export`."""
    flags = parse(ExportFlags, verb, arguments)
    from safemesa.datasets.exporters import exporters
    from safemesa.datasets.offline_tasks import OfflineTasks

    export = exporters[flags.format]
    for path in export(OfflineTasks.load(flags.folder), flags.out):
        print(path)


def doctor(verb: str, arguments: Sequence[str]) -> None:
    """`data doctor`: exits with an error where there is one in the data."""
    flags = parse(DoctorFlags, verb, arguments)
    check_output(flags.json)
    from safemesa.datasets.doctor.examine import examine
    from safemesa.datasets.findings import NOTE
    from safemesa.datasets.importers.import_map import ImportMap, read_map
    from safemesa.datasets.importers.stream import total_bytes
    from safemesa.datasets.importers.write import with_test

    mapping = with_test(ImportMap() if flags.map is None else read_map(flags.map), flags.test)
    present = [path for path in flags.paths if path.exists()]
    with _progress("doctor", total_bytes(present)) as on_rows:
        result = examine(flags.paths, mapping, on_rows)
    print(result.robots)
    print_findings(result.findings, flags.details)
    if not any(one.defect.level != NOTE for one in result.findings):
        print("No defects found.")
    errors = result.findings.errors()
    # What could not be read is missing from the counts.
    for line in () if errors else result.sufficiency.lines():
        print(line)
    print(f"{result.transitions} transitions examined in {result.seconds:.1f} s.")
    if flags.json is not None:
        from safemesa.core.files import write_json

        command = command_line("data", ["doctor", *arguments])
        write_json(flags.json, {"command": command, **result.to_json()})
        print(f"Report: {flags.json}")
    if errors:
        raise DatasetError(f"{len(errors)} defects must be mended before these data are used.")


def report(verb: str, arguments: Sequence[str]) -> None:
    """`data report`: also of a dataset in which the doctor finds errors."""
    flags = parse(ReportFlags, verb, arguments)
    if not 1 <= flags.before <= LONGEST_MOMENT:
        raise ConfigurationError(
            f"--before is {flags.before}; expected 1 to {LONGEST_MOMENT} rows."
        )
    from safemesa.datasets.importers.stream import total_bytes
    from safemesa.datasets.report.data_page import write_data_report

    total = total_bytes([flags.folder]) if flags.folder.exists() else 0
    with _progress("doctor", total) as on_rows:
        path = write_data_report(
            flags.folder,
            flags.out,
            command_line("data", ["report", *arguments]),
            before=flags.before,
            on_rows=on_rows,
        )
    print(f"Report: {path}")


@contextlib.contextmanager
def _progress(phase: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """A bar over megabytes that also shows rows."""
    from safemesa.phases.progress import BarProgress

    megabyte = 2**20
    progress = BarProgress()
    progress.start(phase, max(total // megabyte, 1), 0)
    try:
        yield lambda done, rows: progress.update(done // megabyte, ("rows", float(rows)))
    finally:
        progress.finish()


def print_findings(findings: "Findings", details: bool = False) -> None:
    """A table by kind, errors first, with three examples of each; or a line per finding."""
    from safemesa.datasets.findings import by_kind

    if details:
        for one in findings:
            print(f"{one.defect.level.upper()} {one.sentence()}")
        return
    hidden = 0
    for kind in by_kind(findings):
        defect = kind[0].defect
        count = sum(one.count for one in kind)
        print(
            f"{defect.level.upper():<7} {kind[0].code}: {count} x: {defect.what}. {defect.advice}"
        )
        for one in kind[:EXAMPLES]:
            more = f" [{one.count} x]" if one.count > 1 else ""
            detail = f": {one.detail}" if one.detail else ""
            print(f"          {one.place()}{detail}{more}")
        hidden += len(kind[EXAMPLES:])
        if len(kind) > EXAMPLES:
            print(f"          and in {len(kind) - EXAMPLES} more places")
    if hidden:
        print("Every place: --details, or --json with `data doctor`.")


def print_info(data: "OfflineTasks") -> None:
    """The dataset card."""
    from rich.console import Console
    from rich.table import Table

    rows = data.summary_rows()
    if not any(log.columns["reward"].any() for log in data.logs):
        rows = [{**row, "mean_return": "-"} for row in rows]  # no reward was logged
    columns = [column for column in rows[0] if column != "parameters"]
    table = Table(title=f"{data.domain}: {len(rows)} tasks")
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        values = [row[column] for column in columns]
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in values))
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120)
    console.print(table)
    if data.domain in PAPER_LOGS:
        console.print(PAPER_LOGS[data.domain].in_words(), highlight=False)
    spaces = data.spaces
    console.print(f"observations: {', '.join(spaces.obs_names)}", markup=False)
    console.print(f"actions: {', '.join(spaces.action_names)}", markup=False)
    for name, value in data.provenance.items():
        shown = value if isinstance(value, str) else json.dumps(value)
        console.print(f"{name}: {shown}", markup=False)
