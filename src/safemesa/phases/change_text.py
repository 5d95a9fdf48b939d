"""Changes of a robot in a run, as they are written: `STEP:PARAMETERS`. Free of JAX.

What parameters mean is known by the domain (`domains/changes.py`).
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from safemesa.core.errors import ConfigurationError

DRAWN = "drawn"
"""In place of parameters: another robot of the training distribution, drawn per seed."""

FORMS = (
    "STEP:PARAMETERS, with STEP as 2000 (then), 2000..3000 (at a step between that each seed "
    "draws) or 2000+500 (gradually, in 500 steps from then on), and PARAMETERS as a JSON object "
    f"or the word {DRAWN!r}"
)

_CHANGE = re.compile(r"(\d{1,9})(?:\.\.(\d{1,9}))?(?:\+(\d{1,9}))?:(.+)", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedChange:
    """One change as it was written.

    Attributes:
        first: The first environment step that is taken with changed dynamics, counted from 0, or
            from which a gradual change goes; the earliest where each seed draws it.
        last: The latest.
        duration: Steps from there until the change is complete; 0: at once.
        parameters: What changes, as the domain reads it; None: drawn.
    """

    first: int
    last: int
    duration: int
    parameters: dict[str, Any] | None

    @property
    def end(self) -> int:
        """The latest step from which on the dynamics stay as they are."""
        return self.last + self.duration


def planned_changes(texts: Sequence[str]) -> tuple[PlannedChange, ...]:
    """The changes of `--deploy.change`, in their order.

    Raises:
        ConfigurationError: one is not well formed, comes before the first step, or begins before
            the one before it is complete.
    """
    changes = tuple(_planned(text) for text in texts)
    for text, earlier, later in zip(texts[1:], changes, changes[1:], strict=False):
        if later.first < max(earlier.end, earlier.last + 1):
            raise ConfigurationError(
                f"deploy.change {text!r} may begin at step {later.first}, but the change before it "
                f"is complete at step {earlier.end} only. Write changes in their order, each after "
                "the one before."
            )
    return changes


def _planned(text: str) -> PlannedChange:
    found = _CHANGE.fullmatch(text.strip())
    if found is None:
        raise ConfigurationError(
            f"deploy.change is {text!r}; expected {FORMS}. For example "
            """'2000:{"length": 0.5}', in quotes that keep it one word."""
        )
    first = int(found[1])
    last = first if found[2] is None else int(found[2])
    if first < 1 or last < first:
        raise ConfigurationError(
            f"deploy.change {text!r} begins at step {first if first < 1 else f'{first}..{last}'}; "
            "expected 1 or later, and a range that rises. A robot that differs from the first step "
            "on is another task, not a change."
        )
    if found[3] is not None and int(found[3]) < 2:
        raise ConfigurationError(
            f"deploy.change {text!r} lasts {found[3]} steps; expected 2 or more. Leave "
            f"'+{found[3]}' out for a change at once."
        )
    given = found[4].strip()
    parameters = None if given == DRAWN else _parameters(given, text)
    return PlannedChange(first=first, last=last, duration=int(found[3] or 0), parameters=parameters)


def _parameters(given: str, text: str) -> dict[str, Any]:
    """A JSON object without NaN, infinity or keys that are there twice."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no number")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a key is there twice")
        return dict(pairs)

    try:
        value = json.loads(given, parse_constant=refuse, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"the parameters of deploy.change {text!r} are no JSON: {error}. Expected {FORMS}."
        ) from error
    if not isinstance(value, dict) or not value:
        raise ConfigurationError(
            f"the parameters of deploy.change {text!r} are {value!r}; expected a JSON object with "
            "at least one key."
        )
    return value
