"""Runs of other programs, from a CSV file of episodes: a row per episode, with arm and seed.

Columns `arm`, `seed`, `episode`, `return` and `violation`; `length`, `success`, `steps`, `domain`
and `preset` may be there. A run is all rows of one arm and seed (and domain and preset). What a
file cannot say (interventions, wall times) is None, which tables show as absent.
"""

import csv
import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safemesa.core.errors import ConfigurationError, DatasetError
from safemesa.experiments.arms import find_arm

NEEDED = ("arm", "seed", "episode", "return", "violation")
"""Columns that every file has."""

OPTIONAL = ("length", "success", "steps", "domain", "preset")
"""Columns that a file may have, with a value in every row then."""

LONGEST_NAME = 100
"""Characters of the name of an arm, domain or preset."""

SINCE = 100
"""Episodes of `return_last_100`."""

Values = dict[str, Any]
"""A JSON object."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExternalRun:
    """One run of another program.

    Attributes:
        path: The file and, below it, what sets the run apart; where its lines are read by.
        domain: What the file calls it; None where it has no such column.
        preset: Likewise.
        steps: Environment steps after which the run was ended; None where episodes were counted.
        lines: One per episode, with the fields of `metrics.jsonl`; None for what is not known.
    """

    path: Path
    file: Path
    arm: str
    seed: int
    domain: str | None
    preset: str | None
    steps: int | None
    lines: list[Values]

    def settings(self, domain: str, preset: str) -> Values:
        """As a configuration has them, as far as they are known."""
        episodes = None if self.steps is not None else len(self.lines)
        return {
            "arm": self.arm,
            "domain": domain,
            "preset": preset,
            "seed": self.seed,
            "deploy": {"episodes": episodes, "steps": self.steps},
            "external": self.file.name,
        }

    def summary(self) -> Values:
        """As `summary.json` has it; None for what is not known."""
        returns = [line["return"] for line in self.lines]
        successes = [line["success"] for line in self.lines]
        return {
            "episodes": len(self.lines),
            "env_steps": self.lines[-1]["env_steps"],
            "violations": self.lines[-1]["cumulative_violations"],
            "violations_under_recovery": None,
            "successes": None if None in successes else sum(successes),
            "return_mean": math.fsum(returns) / len(returns),
            "return_last_100": math.fsum(returns[-SINCE:]) / len(returns[-SINCE:]),
            "interventions": None,
            "wall_s": None,
        }


def is_external(path: Path) -> bool:
    """Whether a path is a file of such runs, by its name."""
    return path.suffix.lower() == ".csv" and path.is_file()


def external_file(path: Path) -> Path | None:
    """The file that a run's path lies in; None where the path leads through none."""
    return next((place for place in path.parents if is_external(place)), None)


def external_runs(file: Path) -> tuple[ExternalRun, ...]:
    """The runs of a file, in the order of their first rows; read once while it does not change.

    Raises:
        DatasetError: the file cannot be read, or a row says what no episode can; names file and
            line.
    """
    try:
        status = file.stat()
    except OSError as error:
        raise DatasetError(f"{file} cannot be read: {error.strerror}.") from error
    return _read_runs(file, status.st_mtime_ns, status.st_size)


def external_lines(path: Path, file: Path) -> list[Values]:
    """The episodes of the run that is called `path`.

    Raises:
        DatasetError: the file has no such run, or is damaged.
    """
    for run in external_runs(file):
        if run.path == path:
            return run.lines
    raise DatasetError(f"{file} has no run {path.relative_to(file).as_posix()!r}.")


@functools.lru_cache(maxsize=32)
def _read_runs(file: Path, changed: int, size: int) -> tuple[ExternalRun, ...]:
    del changed, size
    # What sets a run apart: arm, seed, domain, preset. Then its rows, and the line of the last.
    rows: dict[tuple, list[tuple[int, Values]]] = {}
    for number, row in _rows(file):
        key = (row["arm"], row["seed"], row.get("domain"), row.get("preset"))
        rows.setdefault(key, []).append((number, row))
    if not rows:
        raise DatasetError(f"{file} has no episodes below its header.")
    runs = tuple(_run(file, key, episodes) for key, episodes in rows.items())
    _check_lengths(file, runs)
    return runs


def _rows(file: Path) -> list[tuple[int, Values]]:
    """Line numbers and values of all episodes."""
    try:
        with open(file, encoding="utf-8-sig", newline="") as opened:
            table = csv.reader(opened, strict=True)
            header = [name.strip() for name in next(table, [])]
            _check_header(file, header)
            rows = []
            for cells in table:
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise DatasetError(
                        f"{file}, line {table.line_num} has {len(cells)} cells; the header has "
                        f"{len(header)} columns."
                    )
                values = {}
                for name, cell in zip(header, cells, strict=True):
                    try:
                        values[name] = READERS[name](cell.strip())
                    except ValueError as error:
                        raise DatasetError(
                            f"{file}, line {table.line_num} has {cell!r:.60} as {name}; expected "
                            f"{error}."
                        ) from error
                rows.append((table.line_num, values))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(
            f"{file} cannot be read as CSV: {error}. Expected commas, UTF-8 and a header with "
            f"{', '.join(NEEDED)}."
        ) from error
    return rows


def _check_header(file: Path, header: list[str]) -> None:
    missing = [name for name in NEEDED if name not in header]
    unknown = [name for name in header if name not in READERS]
    twice = sorted({name for name in header if header.count(name) > 1})
    problem = (
        f"lacks {', '.join(missing)}"
        if missing
        else f"names unknown columns: {', '.join(map(repr, unknown))}"
        if unknown
        else f"names {', '.join(twice)} twice"
        if twice
        else None
    )
    if problem is None and "steps" in header and "length" not in header:
        problem = "has steps without length, so that nobody knows when an episode ended"
    if problem is not None:
        raise DatasetError(
            f"{file}, line 1 {problem:.300}. A file of episodes has {', '.join(NEEDED)}, and may "
            f"have {', '.join(OPTIONAL)}."
        )


def _run(file: Path, key: tuple, rows: list[tuple[int, Values]]) -> ExternalRun:
    arm, seed, domain, preset = key
    title = f"seed {seed} of {arm!r}"
    first, steps = rows[0][1]["episode"], rows[0][1].get("steps")
    if first not in (0, 1):
        raise DatasetError(
            f"{file}, line {rows[0][0]}: {title} begins with episode {first}; expected 0 or 1. Are "
            "rows missing?"
        )
    lines: list[Values] = []
    elapsed: int | None = 0
    violations = 0
    for place, (number, row) in enumerate(rows, start=first):
        if row["episode"] != place:
            raise DatasetError(
                f"{file}, line {number}: {title} has episode {row['episode']} where {place} is "
                "next. Episodes of a run stand in their order, each once; two runs of an arm need "
                "two seeds."
            )
        if row.get("steps") != steps:
            raise DatasetError(
                f"{file}, line {number} has {row['steps']} as steps, and {steps} before: it is one "
                "number per run, after how many environment steps the run was ended."
            )
        length = row.get("length")
        elapsed = None if length is None or elapsed is None else elapsed + length
        if steps is not None and elapsed is not None and elapsed > steps:
            raise DatasetError(
                f"{file}, line {number}: the episodes of {title} have {elapsed} steps by then, and "
                f"the run ended after {steps}."
            )
        violations += row["violation"]
        lines.append(
            {
                "episode": place - first,
                "env_steps": elapsed,
                "return": row["return"],
                "length": length,
                "violation": row["violation"],
                "success": row.get("success"),
                "interventions": None,
                "violation_under_recovery": None,
                "cumulative_violations": violations,
                "risk_bias": None,
                "wall_s": None,
            }
        )
    name = "/".join(str(part) for part in (domain, preset, arm, seed) if part is not None)
    return ExternalRun(
        path=file / name,
        file=file,
        arm=arm,
        seed=seed,
        domain=domain,
        preset=preset,
        steps=steps,
        lines=lines,
    )


def _check_lengths(file: Path, runs: tuple[ExternalRun, ...]) -> None:
    """Runs of an arm are of one length: their counts are averaged.

    Raises:
        DatasetError: they are not.
    """
    first: dict[tuple, ExternalRun] = {}
    for run in runs:
        other = first.setdefault((run.arm, run.domain, run.preset), run)
        if other.settings("", "")["deploy"] != run.settings("", "")["deploy"]:
            what = "steps" if run.steps is not None else "episodes"
            counts = [one.steps or len(one.lines) for one in (other, run)]
            raise DatasetError(
                f"{file}: seed {other.seed} of {run.arm!r} has {counts[0]} {what} and seed "
                f"{run.seed} has {counts[1]}. Violations of runs of different length say nothing "
                "about each other. Cut them to one length; where runs end after a number of "
                "environment steps, say so in columns `steps` and `length`."
            )


def _name(cell: str) -> str:
    if len(cell) > LONGEST_NAME or not re.fullmatch(r"\w[\w .:()=-]*", cell):
        raise ValueError(
            f"a name of at most {LONGEST_NAME} letters, digits, spaces and _ . : ( ) = -, which "
            "begins with a letter or a digit"
        )
    return cell


def _arm(cell: str) -> str:
    if cell and re.fullmatch(r"[\w+]*", cell):
        try:
            find_arm(cell)
        except ConfigurationError:
            pass
        else:
            raise ValueError(
                f"a name that is no arm of safemesa's, such as '{cell} (ours)': runs of two "
                "programs would be averaged"
            )
    return _name(cell)


def _whole(cell: str) -> int:
    if not re.fullmatch(r"[0-9]{1,15}", cell):
        raise ValueError("a whole number, 0 or more")
    return int(cell)


def _positive(cell: str) -> int:
    number = _whole(cell)
    if number == 0:
        raise ValueError("a whole number, 1 or more")
    return number


def _number(cell: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or "_" in cell:
        raise ValueError("a finite number")
    return number


def _truth(cell: str) -> int:
    try:
        return {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}[cell.lower()]
    except KeyError:
        raise ValueError("0 or 1") from None


READERS: dict[str, Callable[[str], Any]] = {
    "arm": _arm,
    "seed": _whole,
    "episode": _whole,
    "return": _number,
    "violation": _truth,
    "length": _positive,
    "success": _truth,
    "steps": _positive,
    "domain": _name,
    "preset": _name,
}
"""How a cell of each column is read; a ValueError says what was expected."""
