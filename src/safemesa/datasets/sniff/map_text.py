"""The text of a proposed map: TOML lines with reasons, and questions with their candidates."""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from safemesa.datasets.importers.questions import MARK

WIDTH = 100
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A line that may replace the one that asks, and why."""

    line: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What only the user knows."""

    text: str
    candidates: tuple[Candidate, ...] = ()
    meanwhile: str | None = None
    """The line that the doctor reads until there is an answer; None: the first candidate."""

    def provisional(self) -> str | None:
        """The line that stands for an answer where one is needed to look further."""
        if self.meanwhile is None and self.candidates:
            return self.candidates[0].line
        return self.meanwhile


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the map, with the reason of a guess or with a question."""

    text: str
    reason: str = ""
    question: Question | None = None

    def rendered(self) -> list[str]:
        """The lines of text, comments first where they are long."""
        indent = self.text[: len(self.text) - len(self.text.lstrip())]
        if self.question is not None:
            return [*_question(self.question, indent), self.text]
        if not self.reason:
            return [self.text]
        reason = printable(self.reason)
        beside = f"{self.text:<24}  # {reason}"
        if len(beside) <= WIDTH:
            return [beside]
        return [*_wrapped(reason, f"{indent}# "), self.text]

    def answered(self) -> list[str]:
        """The same with a provisional answer, without comments."""
        line = self.text if self.question is None else self.question.provisional()
        return [] if line is None else [line]


def render(lines: Iterable[Line]) -> str:
    """The map."""
    return "".join(f"{text}\n" for line in lines for text in line.rendered())


def render_answered(lines: Sequence[Line]) -> str | None:
    """The map with provisional answers; None where a question has none."""
    asked = [line.question for line in lines if line.question is not None]
    if any(question.provisional() is None for question in asked):
        return None
    return "".join(f"{text}\n" for line in lines for text in line.answered())


def _question(question: Question, indent: str) -> list[str]:
    lines = _wrapped(printable(question.text), f"{indent}{MARK} ")
    for candidate in question.candidates:
        lines.append(f"{indent}#    {candidate.line.strip()}")
        if candidate.reason:
            beside = f"{lines[-1]}  # {printable(candidate.reason)}"
            if len(beside) <= WIDTH:
                lines[-1] = beside
            else:
                lines += _wrapped(printable(candidate.reason), f"{indent}#      # ")
    return lines


def _wrapped(text: str, mark: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=mark,
        subsequent_indent=mark,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [mark.rstrip()]


def printable(text: str) -> str:
    """Text for a comment: one line, without signs that TOML or a terminal would stumble over."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        inner = ", ".join(f"{key} = {toml(item)}" for key, item in value.items())
        return f"{{{inner}}}"
    return '"' + "".join(map(_escaped, str(value))) + '"'


def _escaped(sign: str) -> str:
    if sign in _ESCAPES:
        return _ESCAPES[sign]
    return sign if sign.isprintable() else f"\\U{ord(sign):08x}"
