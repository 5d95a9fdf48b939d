"""Whose row it is: how all formats name robots and episodes, and when two names are one."""

import math
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from safemesa.core.errors import ConfigurationError
from safemesa.datasets.findings import LogError

LONGEST_LABEL = 127
MISSING_WORDS = frozenset(
    (
        "", "nan", "+nan", "-nan", "nan(ind)", "-nan(ind)", "1.#ind", "-1.#ind", "1.#qnan",
        "-1.#qnan", "null", "nil", "none", "na", "n/a", "<na>", "#n/a", "#na", "nat",
    )
)  # fmt: skip
"""How programs write that there is nothing, in small letters."""
FILE, FOLDER = "file", "folder"
_WHOLE = re.compile(r"[+-]?\d{1,17}\.\d*(?:[eE][+-]?\d{1,2})?")
_LEVEL = re.compile(r"folder:([1-9]\d?)")
_CHUNK = re.compile(r"chunk[-_]?\d+", re.IGNORECASE)
_PLACE = "{task}"


def label(value: Any, missing: Collection[str] = ()) -> str:
    """The name that a cell gives a robot or an episode; empty where it gives none.

    `1`, `1.0` and `1.000e+00` are one name, whatever the type of the column; `01` and `1.10` are
    texts and stay as they are.

    Raises:
        LogError: it is longer than a name can be, or no text.
    """
    if value is None:
        return ""
    if isinstance(value, float | np.floating):
        return _number_label(value)
    if isinstance(value, bytes):
        value = value.decode()
    text = str(value).strip().rstrip("\0")
    if text.lower() in MISSING_WORDS or text in missing:
        return ""
    if len(text) > LONGEST_LABEL:
        raise LogError(
            "label-too-long",
            f"an identifier has {len(text)} signs, {text[:40]!r}..., expected at most "
            f"{LONGEST_LABEL}. Is this really the column of the robot or the episode?",
        )
    return _number_label(float(text)) if _is_whole(text) else text


def labels(values: Iterable[Any], missing: Collection[str] = ()) -> np.ndarray:
    """`label` of every cell, as text `[n]`."""
    cells = (
        values.tolist() if isinstance(values, np.ndarray) and values.dtype.kind != "f" else values
    )
    cells = list(cells)
    # Few names, many rows. NaN is not equal to itself, so it is looked up as it is.
    known: dict[Any, str] = {}
    found = []
    for cell in cells:
        name = known.get(cell)
        if name is None:
            name = known[cell] = label(cell, missing)
        found.append(name)
    return np.asarray(found, np.str_)


def _is_whole(text: str) -> bool:
    return _WHOLE.fullmatch(text) is not None and float(text).is_integer()


def _number_label(value: Any) -> str:
    if math.isnan(value):
        return ""
    number = float(value)
    return str(int(number)) if number.is_integer() and abs(number) < 2**53 else str(value)


def check_task_rule(rule: str) -> None:
    """Checks `task_from` of a map.

    Raises:
        ConfigurationError: it is no rule.
    """
    pattern = rule.count(_PLACE) == 1 and len(rule) <= 500 and "\\" not in rule
    if rule not in (FILE, FOLDER) and not _LEVEL.fullmatch(rule) and not pattern:
        raise ConfigurationError(
            f'map: task_from is {rule[:80]!r}, expected "file", "folder", "folder:2" (two levels '
            'up), or a pattern of paths such as "{task}/*/run_*.csv".'
        )


def task_of(path: Path, rule: str | None, declared: str | None) -> tuple[str, str]:
    """The robot of a file that has no column for it, and what stands for that name.

    Two files may share a name only if the same thing stands for it: the file itself, a folder, a
    pattern of the map, or a name that both recordings were given.

    Raises:
        LogError: the pattern does not fit the path, or there are not so many folders.
    """
    if rule is None and declared is not None:
        # A recording that was given no name has that of its file, as many others may.
        return declared, str(path) if declared.rsplit("/", 1)[-1] in _names(path) else "recordings"
    if rule is None or rule == FILE:
        return (path.name if path.is_dir() else path.stem), str(path)
    absolute = path.absolute()
    if rule == FOLDER:
        # A LeRobot dataset is the folder of one robot, whose chunks were files before.
        folder = absolute if (absolute / "meta" / "info.json").is_file() else absolute.parent
        if _CHUNK.fullmatch(folder.name):
            # Chunks are parts of one recording, often below a folder `data`.
            folder = folder.parent
            folder = folder.parent if folder.name.lower() == "data" else folder
        return folder.name, str(folder)
    level = _LEVEL.fullmatch(rule)
    if level is not None:
        folders = absolute.parents
        number = int(level[1])
        if number >= len(folders):
            raise LogError("no-task", f"{path} has no {number} folders above it (task_from).")
        return folders[number - 1].name, str(folders[number - 1])
    match = _pattern(rule).fullmatch(absolute.as_posix())
    if match is None:
        raise LogError(
            "no-task",
            f'{path} does not fit task_from = "{rule}", so that nobody knows its robot. Correct '
            "the pattern, or leave the file out.",
        )
    return match["task"], "task_from"


def _names(path: Path) -> tuple[str, ...]:
    return path.name, path.stem


def _pattern(rule: str) -> re.Pattern[str]:
    """`*` stands for signs within a name, `**` for folders, `{task}` for the robot."""
    signs = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]", _PLACE: "(?P<task>[^/]+?)"}
    parts = re.split(r"(\*\*/|\*|\?|\{task\})", rule.lstrip("/"))
    return re.compile("(?:.*/)?" + "".join(signs.get(one) or re.escape(one) for one in parts))


def robots_in_words(files: dict[str, int], total: int) -> str:
    """`2 robots from 3 files: arm_a (2 files), arm_b`."""
    shown = [name if count == 1 else f"{name} ({count} files)" for name, count in files.items()]
    more = f", and {len(shown) - 12} more" if len(shown) > 12 else ""
    robots = "robot" if len(files) == 1 else "robots"
    names = "file" if total == 1 else "files"
    return f"{len(files)} {robots} from {total} {names}: {', '.join(shown[:12])}{more}."
