"""Which robots the files are of, by their places."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safemesa.core.errors import SafemesaError
from safemesa.datasets.importers.identity import FILE, FOLDER, task_of

RULES = (FILE, FOLDER, "folder:2", "folder:3", "folder:4")
_PART = re.compile(
    r"(\D{0,3}[\d_.T:-]+|(part|chunk|file|log|run|episode|rec|recording|data)[-_]?[\d_.T:-]*)",
    re.IGNORECASE,
)
"""Names that parts of one recording have: dates and numbers."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """Rules that give every file a robot, the likely one first."""

    rules: tuple[str, ...]
    certain: bool
    """Nothing else is likely."""
    robots: tuple[str, ...]
    """Names by the first rule."""


def read_places(paths: Sequence[Path]) -> Places:
    """Reads robots off the paths of files that have no column for them."""
    rules = {rule: robots for rule in RULES if (robots := _robots(paths, rule)) is not None}
    parts = all(_PART.fullmatch(path.stem) for path in paths)
    folders = len({path.parent for path in paths})
    if len(paths) == 1:
        return Places(rules=(FILE,), certain=True, robots=rules.get(FILE, ()))
    by_folder = [rule for rule in rules if rule != FILE]
    if FILE not in rules:
        # Files of one name in several folders: a robot each, or each folder is one.
        certain, order = bool(by_folder), by_folder
    elif folders == 1:
        certain, order = not parts, [FILE, *by_folder[:1]]
    elif folders == len(paths):
        certain, order = True, [*by_folder[:1], FILE] if parts else [FILE, *by_folder[:1]]
    else:
        certain, order = parts and bool(by_folder), [*by_folder[:1], FILE]
    return Places(rules=tuple(order), certain=certain, robots=rules[order[0]] if order else ())


def _robots(paths: Sequence[Path], rule: str) -> tuple[str, ...] | None:
    """Robots by a rule; None where it takes two for one, or does not fit."""
    owners: dict[str, str] = {}
    for path in paths:
        try:
            task, owner = task_of(path, rule, None)
        except SafemesaError:
            return None
        if owners.setdefault(task, owner) != owner or not task:
            return None
    return tuple(owners)
