"""A map for logs that have none: guesses with their reasons, and questions for the user."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safemesa.core.errors import DatasetError
from safemesa.datasets.importers.find import find_sources
from safemesa.datasets.sniff.describe_files import describe
from safemesa.datasets.sniff.description import Description
from safemesa.datasets.sniff.facts import gather
from safemesa.datasets.sniff.map_text import (
    Line,
    Question,
    render,
    render_answered,
    toml,
)
from safemesa.datasets.sniff.roles import assign
from safemesa.datasets.sniff.sections import NEVER, Sections

MOST_FILES = 24
BUDGET = 8 * 2**20
"""Bytes that are looked at, over all files."""
MOST_OF_A_FILE = 3 * 2**20


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A map to be completed."""

    text: str
    answered: str | None
    """The same with the first candidate of each question, to look further; None where a question
    has none."""
    questions: tuple[tuple[int, Question], ...]
    """With the line of `text` that each stands in."""
    summary: str
    """What was recognised, in a few lines."""
    knows_violations: bool
    """Whether `answered` has a candidate for what a violation is."""


def propose(paths: Sequence[Path], budget: int = BUDGET) -> Proposal:
    """Looks at some of the files, and proposes a map.

    Raises:
        DatasetError: there are no logs, none can be read, or they have no column in common.
    """
    skipped: list[Path] = []
    sources = find_sources(paths, skipped)
    descriptions = _described(sources, budget)
    first = descriptions[0].declaration
    if first.spaces is not None:
        return _own_recording(descriptions, sources)
    sample = gather(descriptions)
    if not sample.columns:
        raise DatasetError(
            f"{descriptions[0].path} and the other files have no column in common. Sniff logs of "
            "one kind at a time."
        )
    lines = list(Sections(assign(sample), sources).lines())
    text = render(lines)
    return Proposal(
        text=text,
        answered=render_answered(lines),
        questions=_numbered(lines),
        summary=_summary(descriptions, sources, len(sample.columns)),
        knows_violations=not any(
            line.question and line.question.meanwhile and str(NEVER) in line.question.meanwhile
            for line in lines
        ),
    )


def _described(sources: Sequence[Path], budget: int) -> list[Description]:
    """Some of the files, evenly chosen; those that cannot be read are left to the doctor."""
    count = min(len(sources), MOST_FILES)
    chosen = [sources[number * len(sources) // count] for number in range(count)]
    found, errors = [], []
    for path in chosen:
        try:
            description = describe(path, min(budget // count, MOST_OF_A_FILE))
        except DatasetError as error:
            errors.append(error)
            continue
        if any(len(part) for column in description.columns for part in column.parts):
            found.append(description)
    if not found:
        raise (
            errors[0]
            if errors
            else DatasetError(f"{chosen[0]} has no rows of numbers or texts. Give logs of signals.")
        )
    return found


def _own_recording(descriptions: Sequence[Description], sources: Sequence[Path]) -> Proposal:
    domain = descriptions[0].declaration.domain or "robots"
    line = Line(
        text=f"domain = {toml(domain)}",
        reason="recorded by safemesa: these files say all else; import them without a map",
    )
    text = render([line])
    return Proposal(
        text=text,
        answered=text,
        questions=(),
        summary=_summary(descriptions, sources, len(descriptions[0].columns)),
        knows_violations=True,
    )


def _summary(descriptions: Sequence[Description], sources: Sequence[Path], columns: int) -> str:
    forms = sorted({each.format for each in descriptions})
    whole = len(descriptions) == len(sources) and all(each.whole for each in descriptions)
    looked = "all rows" if whole else f"some rows of {len(descriptions)} files"
    files = "1 file" if len(sources) == 1 else f"{len(sources)} files"
    return f"{files} ({', '.join(forms)}) with {columns} columns; {looked} looked at."


def _numbered(lines: Sequence[Line]) -> tuple[tuple[int, Question], ...]:
    numbered, count = [], 0
    for line in lines:
        count += len(line.rendered())
        if line.question is not None:
            numbered.append((count, line.question))
    return tuple(numbered)
