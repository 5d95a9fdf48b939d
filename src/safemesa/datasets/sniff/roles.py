"""The meaning of every column, given all of them."""

import keyword
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np

from safemesa.datasets.importers.import_map import MAXIMUM_NAME, ColumnNames, ImportMap
from safemesa.datasets.importers.limit import FUNCTIONS
from safemesa.datasets.importers.questions import OPEN
from safemesa.datasets.sniff.description import TEXT, TIME
from safemesa.datasets.sniff.facts import Facts, Sample, facts_of, plain, time_unit
from safemesa.datasets.sniff.rules import (
    ACTION,
    COST,
    DONE,
    EPISODE,
    IGNORE,
    MAYBE_ACTION,
    OBSERVATION,
    REWARD,
    STEP,
    TASK,
    TERMINATED,
    TIMES,
    TRUNCATED,
    judge,
)

RESERVED = frozenset((*keyword.kwlist, *FUNCTIONS))
"""Words that mean something else in a limit."""
SINGLE = (TASK, EPISODE, STEP, TIMES, REWARD, TERMINATED, TRUNCATED, DONE)
"""Roles that one column has at most."""
STAMPS = frozenset(("stamp", "timestamp"))
"""Words of fields that say when a message was made."""
FEWEST_EPISODES = 5
SHORT_EPISODE = 5
"""Rows; in so few anything may stand still."""
FORMAT_SAYS = "the format names it so"


@dataclass
class Roles:
    """What each column is, in the order of the files."""

    sample: Sample
    facts: dict[str, Facts]
    meanings: dict[str, tuple[str, str]]
    """Name to role and reason."""
    following: dict[str, str] = field(default_factory=dict)
    """Observation to the column that holds it after the step."""

    def of(self, *roles: str) -> list[str]:
        """Columns with one of these roles."""
        return [name for name, (role, _) in self.meanings.items() if role in roles]

    def first(self, role: str) -> str | None:
        """The column of a role that is there once."""
        return next(iter(self.of(role)), None)

    def reason(self, name: str) -> str:
        """Why a column has its role."""
        return self.meanings[name][1]

    def set(self, name: str, role: str, reason: str) -> None:
        """Gives a column another role."""
        self.meanings[name] = (role, reason)

    def within(self) -> np.ndarray:
        """Which pairs of rows `[n - 1]` follow each other within an episode."""
        inside = ~self.sample.starts[1:]
        for role in (TASK, EPISODE):
            name = self.first(role)
            if name is not None:
                values = self.sample.values(name)
                inside &= values[1:] == values[:-1]
        for role in (TERMINATED, TRUNCATED, DONE):
            name = self.first(role)
            if name is not None:
                inside &= ~(self.sample.values(name)[:-1] == 1)
        return inside


def assign(sample: Sample) -> Roles:
    """Judges each column, then what only a look at the others decides."""
    facts = {name: facts_of(sample, name) for name in sample.columns}
    roles = Roles(sample, facts, {name: judge(each) for name, each in facts.items()})
    _hear_format(roles)
    _refuse_names(roles)
    if any(each.makes_time for each in sample.descriptions):
        stamps = [name for name, each in facts.items() if STAMPS & set(each.words)]
        for name in dict.fromkeys([*roles.of(TIMES), *stamps]):
            roles.set(name, IGNORE, "times of messages; [resample] time says which count")
    _pair_next(roles)
    for role in SINGLE:
        _keep_one(roles, role)
    _drop_copies(roles)
    _drop_standing(roles)
    weak = ACTION if not roles.of(ACTION) else OBSERVATION
    for name in roles.of(MAYBE_ACTION):
        roles.set(name, weak, roles.reason(name))
    return roles


def _hear_format(roles: Roles) -> None:
    """Columns whose meaning the format fixes."""
    layout: ImportMap = roles.sample.descriptions[0].declaration.layout
    for each in fields(ColumnNames):
        name = getattr(layout.columns, each.name)
        if name in roles.facts:
            roles.set(name, each.name, FORMAT_SAYS)
    for role, signals in ((OBSERVATION, layout.obs), (ACTION, layout.action)):
        for signal in signals:
            if signal.column in roles.facts:
                facts = roles.facts[signal.column]
                shown = f"{FORMAT_SAYS}, {facts.low:.4g} to {facts.high:.4g}"
                roles.set(signal.column, role, shown)
            if signal.next_column in roles.facts:
                roles.following[signal.column] = signal.next_column
    if layout.cost_column in roles.facts:
        roles.set(layout.cost_column, COST, FORMAT_SAYS)


def _refuse_names(roles: Roles) -> None:
    """Names that a map cannot hold."""
    for name in roles.facts:
        if not (name.isprintable() and 0 < len(name) <= MAXIMUM_NAME) or name == OPEN:
            roles.set(name, IGNORE, "a map cannot hold such a name")


def _pair_next(roles: Roles) -> None:
    """Columns that hold an observation after the step."""
    by_words = {roles.facts[name].words: name for name in roles.of(OBSERVATION, MAYBE_ACTION)}
    for words, name in by_words.items():
        rest = tuple(word for word in words if word != "next")
        base = by_words.get(rest)
        if base is None or len(rest) + 1 != len(words):
            continue
        if roles.facts[base].width == roles.facts[name].width:
            roles.following[base] = name
    observations = [name for name in roles.of(OBSERVATION) if name not in _values(roles)]
    complete = bool(observations) and all(name in roles.following for name in observations)
    for base, name in roles.following.items():
        reason = f"{base!r} after the step" + ("" if complete else "; others have no such column")
        roles.set(name, IGNORE, reason)
    if not complete:
        roles.following = {}


def _values(roles: Roles) -> set[str]:
    return set(roles.following.values())


def _keep_one(roles: Roles, role: str) -> None:
    names = roles.of(role)
    if len(names) < 2:
        return
    facts = roles.facts

    def rank(name: str) -> tuple:
        given = roles.reason(name) == FORMAT_SAYS
        if role == TIMES:
            each = facts[name]
            return given, each.kind == TIME, bool(time_unit(each)), each.rises
        # Of nested labels (a session of runs) the finest tells where rows belong together.
        return given, facts[name].changes if role == EPISODE else 0

    chosen = max(names, key=rank)
    for name in names:
        if name != chosen:
            roles.set(name, IGNORE, f"{chosen!r} is taken instead")


def _drop_copies(roles: Roles) -> None:
    """Signals that equal another in every row."""
    seen: dict[bytes, str] = {}
    for name in roles.of(ACTION, OBSERVATION, MAYBE_ACTION):
        values = roles.sample.values(name)
        if values.dtype.kind != "f":
            continue
        content = values.tobytes()
        if content in seen:
            roles.set(name, IGNORE, f"equals {seen[content]!r} in every row that was looked at")
        seen.setdefault(content, name)


def _drop_standing(roles: Roles) -> None:
    """Signals that stand still in every episode: no action changes them."""
    pairs = roles.within()
    episodes = int(np.count_nonzero(~pairs)) + 1
    long = len(pairs) + 1 >= SHORT_EPISODE * episodes
    for name in roles.of(OBSERVATION):
        facts = roles.facts[name]
        if facts.width is not None or facts.kind == TEXT or roles.reason(name) == FORMAT_SAYS:
            continue
        values = roles.sample.values(name)
        moved = pairs & (values[1:] != values[:-1]) & ~np.isnan(values[1:]) & ~np.isnan(values[:-1])
        files = len(roles.sample.descriptions)
        if facts.constant_per_file and files > 1:
            roles.set(name, IGNORE, "stands still in every file: a property of the robot?")
        elif not moved.any() and episodes >= FEWEST_EPISODES and long:
            roles.set(name, IGNORE, f"stands still in every episode, {roles.reason(name)}")


def signal_names(names: Mapping[str, str]) -> dict[str, str]:
    """A plain name for each column, as limits can read it; `names` are columns without units."""
    plain_names: dict[str, str] = {}
    taken: set[str] = set()
    for number, (column, name) in enumerate(names.items()):
        signs = [sign if sign.isascii() and sign.isalnum() else "_" for sign in plain(name)]
        text = "_".join(part for part in "".join(signs).split("_") if part)
        if not text or text[0].isdigit():
            text = f"column_{number}" if not text else f"c_{text}"
        text = f"{text}_" if text in RESERVED else text
        text = text[:100]
        while text in taken:
            text += "_"
        taken.add(text)
        plain_names[column] = text
    return plain_names
