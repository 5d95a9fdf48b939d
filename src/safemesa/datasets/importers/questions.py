"""Open questions of a map: keys whose value is `"?"`, with the question in `#?` comments above.

`data sniff` writes them where only the user knows. A map that has one is refused, so that nothing
is learned from a guess.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from safemesa.core.errors import ConfigurationError

OPEN = "?"
"""The value of a key that waits for its answer."""
MARK = "#?"
"""How a comment begins that asks for the value of the next key."""
DEPTH = 4
"""Tables within tables that a map has."""
_SIGNS = ("delimiter", "comment")
"""Keys that may well be a question mark."""
_KEY = re.compile(r"""([A-Za-z0-9_-]+)\s*=\s*(?:"\?"|'\?')""")


class OpenQuestionError(ConfigurationError):
    """A map waits for answers of the user's."""


def refuse_questions(record: Mapping[str, Any], where: str, text: str | None = None) -> None:
    """Refuses a map with open questions.

    `text` is the TOML that `record` was read from; with it the message has lines and questions.

    Raises:
        OpenQuestionError: there are some; all are named.
    """
    keys = list(_open_keys(record))
    if not keys:
        return
    asked = [] if text is None else list(_asked(text))
    lines = [
        f"{where}, line {line}: {key} is open. {question or 'Give its value.'}"
        for line, key, question in asked
    ]
    if not lines:
        lines = [f"{where}: {key} is open. Give its value." for key in dict.fromkeys(keys)]
    count = "an open question" if len(lines) == 1 else f"{len(lines)} open questions"
    raise OpenQuestionError(
        f"the map has {count}; answer each by replacing its line:\n  " + "\n  ".join(lines)
    )


def _open_keys(table: Mapping[str, Any], depth: int = 0) -> Iterator[str]:
    """Keys of open questions, at any depth that a map has a meaning for."""
    for key, value in table.items():
        if key in _SIGNS or key == "parameters" or depth > DEPTH:
            continue
        if value == OPEN:
            yield str(key)
        # A text in a list is the name of a column or of a missing value.
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, Mapping):
                yield from _open_keys(inner, depth + 1)


def _asked(text: str) -> Iterator[tuple[int, str, str]]:
    """Lines with open keys: their numbers, the keys, and what the comments above ask."""
    question: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        content = line.strip()
        if content.startswith("#"):
            if content.startswith(MARK):
                question.append(content.removeprefix(MARK).strip())
            continue
        keys = [key for key in _KEY.findall(content) if key not in _SIGNS]
        if keys:
            yield number, " and ".join(keys), " ".join(question)
        question = []
