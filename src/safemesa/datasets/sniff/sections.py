"""The sections of a proposed map, from the roles of the columns and the places of the files."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from safemesa.datasets.importers.identity import label
from safemesa.datasets.importers.questions import OPEN
from safemesa.datasets.sniff.clock import Clock, bound, read_clock, rounded
from safemesa.datasets.sniff.description import NUMBER, Setting
from safemesa.datasets.sniff.facts import SECONDS, Facts, split_unit, time_unit
from safemesa.datasets.sniff.map_text import (
    Candidate,
    Line,
    Question,
    toml,
)
from safemesa.datasets.sniff.robots import read_places
from safemesa.datasets.sniff.roles import FORMAT_SAYS, Roles, signal_names
from safemesa.datasets.sniff.rules import (
    ACTION,
    ALARM,
    AT_ENDS,
    COST,
    DONE,
    EPISODE,
    IGNORE,
    OBSERVATION,
    RARE,
    REWARD,
    STEP,
    TASK,
    TERMINATED,
    TIMES,
    TRUNCATED,
)

SHOWN = 12
ALIKE = 1.5
"""Ranges of an array's numbers that differ by less have one bound."""
MOST_COMPONENTS = 64
MOST_COMMANDS = 12
LONGEST_NAME = 1_000
"""Signs of a column's name; longer ones are no names, and would fill the map."""
FEWEST_MILLISECONDS = 2
"""A clock of whole numbers that does not say what it counts, and takes larger steps than of one,
is more likely one of milliseconds than of seconds."""
NEVER = 1e300
"""What no signal reaches."""
NEW_ROBOT = ("new", "test", "target")
LATCHED = 3
"""Rows in a row with an alarm, from which on it is said to stay on."""


class Sections:
    """The lines of a map, section by section."""

    def __init__(self, roles: Roles, sources: Sequence[Path]) -> None:
        self.roles = roles
        self.sources = sources
        self.descriptions = roles.sample.descriptions
        self.declaration = self.descriptions[0].declaration
        self.names = signal_names({name: split_unit(name)[0] for name in roles.facts})
        self.alarms = roles.of(ALARM, COST, RARE)
        self.given = {each.key for file in self.descriptions for each in file.settings}
        # Of many nobody wants to be asked one by one.
        commands = roles.of(ACTION)
        self.crowd = commands if len(commands) > MOST_COMMANDS else []
        for name in self.crowd:
            roles.set(name, IGNORE, "named like a command, see action")
        self.clock: Clock | None = None
        self.unit = ""
        time = roles.first(TIMES)
        if time is not None:
            self.clock = read_clock(roles.sample.values(time), roles.within())
            self.unit = time_unit(roles.facts[time])

    def lines(self) -> Iterator[Line]:
        """All of them, in the order of the file."""
        yield Line(text="# A proposed map. Comments give the reason of each guess: check them.")
        yield Line(
            text='# Lines with "?" wait for you: replace each by one line (docs/import_csv.md).'
        )
        yield Line(text=f"domain = {toml(self._domain())}", reason="the name of the logs")
        yield from self._settings()
        if "rows" not in self.given:
            yield from self._rows()
        if "dt" not in self.given:
            yield from self._time()
        yield from self._cells()
        yield from self._robots()
        yield from self._ignored()
        yield from self._observations()
        yield from self._actions()
        yield from self._signals()
        yield from self._columns()
        yield from self._settings(table="resample")
        yield from self._contacts()
        yield from self._cost()
        yield from self._new_robot()

    def _domain(self) -> str:
        if self.declaration.domain:
            return self.declaration.domain
        first = self.sources[0].absolute()
        name = first.stem if len(self.sources) == 1 else _common_folder(self.sources).name
        text = "".join(sign if sign.isprintable() else "_" for sign in name)[:100]
        return text or "robots"

    def _settings(self, table: str = "") -> Iterator[Line]:
        """What the format needs, on top or of a table; the settings that most files have."""
        counts: dict[str, Counter[str]] = {}
        settings: dict[tuple[str, str], Setting] = {}
        for description in self.descriptions:
            for setting in description.settings:
                if setting.key.rpartition(".")[0] != table:
                    continue
                shown = toml(setting.value)
                counts.setdefault(setting.key, Counter())[shown] += 1
                settings.setdefault((setting.key, shown), setting)
        files = len(self.descriptions)
        if table and counts:
            yield Line(text="")
            yield Line(text=f"[{table}]")
        for key, values in counts.items():
            if key == "missing_values":
                yield self._missing_values()
                continue
            shown, count = values.most_common(1)[0]
            # What few files have is a fault of theirs, which the doctor shows.
            if 2 * count < files:
                continue
            setting = settings[key, shown]
            of_some = "" if count == files else f"; so in {count} of {files} files"
            name = key.rpartition(".")[2]
            text = f"{name} = {shown}"
            if setting.value == OPEN:
                candidates = [
                    Candidate(line=f"{name} = {toml(value)}") for value in setting.candidates
                ]
                question = Question(text=setting.reason, candidates=tuple(candidates))
                yield Line(text=text, question=question)
            else:
                yield Line(text=text, reason=f"{setting.reason}{of_some}")

    def _missing_values(self) -> Line:
        words: dict[str, None] = {}
        for description in self.descriptions:
            for setting in description.settings:
                if setting.key == "missing_values":
                    words.update(dict.fromkeys(setting.value))
        return Line(text=f"missing_values = {toml(list(words))}", reason="texts among numbers")

    def _rows(self) -> Iterator[Line]:
        if self.declaration.layout.rows is not None and self._format_has_signals():
            line = f"rows = {toml(self.declaration.layout.rows)}"
            yield Line(text=line, reason="as the format has it")
            return
        if self.roles.following:
            pairs = list(self.roles.following.items())
            reason = f"{pairs[0][1]!r} holds {pairs[0][0]!r} after the step"
            yield Line(text='rows = "steps"', reason=reason)
            return
        candidates = [
            Candidate(
                line='rows = "states"',
                reason="a moment; the next row shows what its command led to (loggers)",
            ),
            Candidate(
                line='rows = "steps"',
                reason="a step: state before it, action, what it led to (Gymnasium)",
            ),
        ]
        ends = self.roles.of(TERMINATED, TRUNCATED, DONE, REWARD)
        if ends and not self.roles.of(TIMES):
            candidates.reverse()
        text = (
            "What is a row? It decides which action a violation is charged to: the one of the row "
            "before, or its own."
        )
        yield Line(text=f"rows = {toml(OPEN)}", question=_question(text, candidates))

    def _format_has_signals(self) -> bool:
        layout = self.declaration.layout
        return any(each.column in self.roles.facts for each in (*layout.obs, *layout.action))

    def _time(self) -> Iterator[Line]:
        time, layout = self.roles.first(TIMES), self.declaration.layout
        rates = {facts.rate for facts in self.roles.facts.values() if facts.rate}
        if layout.dt is not None:
            yield Line(text=f"dt = {toml(layout.dt)}", reason="the file says so")
            if time is not None:
                reason = "where rows are missing a new episode begins"
                yield Line(text='gaps = "split"', reason=reason)
        elif time is None or self.clock is None:
            if len(rates) == 1:
                rate = rates.pop()
                line = f"dt = {toml(rounded(1.0 / rate))}"
                yield Line(text=line, reason=f"{rate:.4g} rows per second, says the file")
                return
            yield Line(
                text=f"dt = {toml(OPEN)}",
                question=Question(
                    text="How many seconds lie between two rows? No column has the time.",
                    meanwhile="dt = 1.0",
                ),
            )
        else:
            yield from self._measured_time(time, self.clock)

    def _measured_time(self, time: str, clock: Clock) -> Iterator[Line]:
        seen = f"median of {clock.pairs} pairs of rows"
        if clock.early:
            seen += f", {clock.early} of them much closer"
        unit = self.unit
        if not unit and clock.whole and clock.spacing >= FEWEST_MILLISECONDS:
            unit = "ms"
        scale = SECONDS.get(unit, 1.0)
        if scale != 1.0:
            reason = f"{time!r} counts {unit}" + ("" if self.unit else "? See dt")
            yield Line(text=f"time_scale = {toml(scale)}", reason=reason)
        if not np.isfinite(clock.spacing):
            text = f"How many seconds lie between two rows? {time!r} shows no two in order."
            question = Question(text=text, meanwhile="dt = 1.0")
            yield Line(text=f"dt = {toml(OPEN)}", question=question)
        elif self.unit or not clock.whole:
            dt = rounded(clock.spacing * scale)
            taken = "" if self.unit else f"; {time!r} taken for seconds"
            yield Line(text=f"dt = {toml(dt)}", reason=f"seconds between rows: {seen}{taken}")
        else:
            word = "milliseconds" if unit else "seconds"
            text = (
                f"How many seconds lie between two rows? {time!r} counts {clock.spacing:g} from "
                f"row to row and does not say of what. If not of {word}, change time_scale too, "
                "the seconds of one count."
            )
            candidate = Candidate(line=f"dt = {toml(rounded(clock.spacing * scale))}", reason=word)
            yield Line(text=f"dt = {toml(OPEN)}", question=_question(text, [candidate]))
        count = "none seen" if not clock.gaps else f"{clock.gaps} seen"
        reason = f"where rows are missing a new episode begins; {count}"
        yield Line(text='gaps = "split"', reason=reason)

    def _cells(self) -> Iterator[Line]:
        """What missing cells mean, and what follows a violation."""
        facts = self.roles.facts
        used = self.roles.of(TIMES, OBSERVATION, ACTION, ALARM, RARE)
        missing = [name for name in used if facts[name].missing]
        latched = [name for name in self.alarms if facts[name].longest_on >= LATCHED]
        if latched and all(facts[name].ones < 1 for name in latched):
            longest = max(facts[name].longest_on for name in latched)
            reason = f"{_listed(latched)}: on for up to {longest} rows; the first one counts"
            yield Line(text='after_violation = "cut"', reason=reason)
        if missing:
            worst = max(missing, key=lambda name: facts[name].missing)
            text = (
                f"What does a missing cell mean? {_listed(missing)}: up to "
                f"{facts[worst].missing:.2%} of the rows."
            )
            timed = self.roles.first(TIMES) is not None
            dropped = "as if the row had not been logged" + (": a gap in time" if timed else "")
            candidates = [
                Candidate(line='missing = "drop"', reason=dropped),
                Candidate(line='missing = "hold"', reason="what the row before had; needs one"),
                Candidate(line='missing = "split"', reason="drop it and begin a new episode"),
            ]
            if not timed:
                # Without time nobody would notice that a row is gone.
                candidates.reverse()
            yield Line(text=f"missing = {toml(OPEN)}", question=_question(text, candidates))

    def _robots(self) -> Iterator[Line]:
        """Which robot a file is of, where no column says it."""
        self.robots: tuple[str, ...] = ()
        task = self.roles.first(TASK)
        if task is not None:
            self.robots = self.roles.facts[task].texts or tuple(
                map(label, np.unique(self.roles.sample.values(task))[:SHOWN])
            )
            return
        declared = [each.declaration.task for each in self.descriptions]
        if any(declared):
            self.robots = tuple(dict.fromkeys(name for name in declared if name))
            return
        places = read_places(self.sources)
        self.robots = places.robots
        if not places.rules:
            text = (
                "Which robot is a file of? Neither files nor folders have names that tell them "
                "apart. Name a pattern of paths, or rename them."
            )
            question = Question(text=text, meanwhile='task_from = "file"')
            yield Line(text=f"task_from = {toml(OPEN)}", question=question)
        elif places.certain:
            robots = f"{len(self.robots)} robots: {_listed(self.robots)}"
            reason = robots if len(self.robots) > 1 else f"one robot: {_listed(self.robots)}"
            yield Line(text=f"task_from = {toml(places.rules[0])}", reason=reason)
        else:
            candidates = [Candidate(line=f"task_from = {toml(rule)}") for rule in places.rules]
            text = (
                f"Which robot is a file of? {_listed([path.name for path in self.sources])}: is "
                "each a robot, or are they parts of a robot's log?"
            )
            yield Line(text=f"task_from = {toml(OPEN)}", question=_question(text, candidates))

    def _ignored(self) -> Iterator[Line]:
        reasons = {name: self.roles.reason(name) for name in self.roles.of(IGNORE)}
        step = self.roles.first(STEP)
        if step is not None and not self._uses_step():
            reasons[step] = "numbers the rows; time says the same"
        done = self.roles.first(DONE)
        if done is not None and self.roles.first(EPISODE) is not None:
            reasons[done] = "ends are where the episode's label changes"
        following = set(self.roles.following.values())
        reasons = {name: why for name, why in reasons.items() if name not in following}
        for description in self.descriptions:
            for name, why in description.unread:
                reasons.setdefault(name, why)
        listed = [*self.roles.facts, *reasons]
        if not reasons:
            return
        yield Line(text="ignore = [")
        for name in dict.fromkeys(name for name in listed if name in reasons):
            if len(name) > LONGEST_NAME:
                continue
            yield Line(text=f"  {toml(name)},", reason=reasons[name])
        yield Line(text="]")

    def _observations(self) -> Iterator[Line]:
        names = self.roles.of(OBSERVATION)
        yield Line(text="")
        if not names:
            text = "Which columns does the robot observe? No column looks like a measurement."
            yield Line(text=f"obs = {toml(OPEN)}", question=Question(text=text))
            return
        yield Line(text="obs = [")
        for name in names:
            row = self._signal(name)
            if name in self.roles.following:
                row["next_column"] = self.roles.following[name]
            yield Line(text=f"  {toml(row)},", reason=self.roles.reason(name))
        yield Line(text="]")

    def _signal(self, name: str) -> dict[str, Any]:
        facts = self.roles.facts[name]
        row: dict[str, Any] = {"name": self.names[name]}
        if self.names[name] != name:
            row["column"] = name
        if _is_unit(facts.unit):
            row["unit"] = facts.unit
        return row

    def _actions(self) -> Iterator[Line]:
        names, facts = self.roles.of(ACTION), self.roles.facts
        yield Line(text="")
        if not names:
            yield Line(text=f"action = {toml(OPEN)}", question=self._which_action())
            return
        yield Line(text="action = [")
        for name in names:
            for row, low, high, note in self._commands(name):
                yield self._command_line(row, facts[name], (low, high), f"{name}: {note}")
        yield Line(text="]")

    def _which_action(self) -> Question:
        """Commands that no name gives away: bounded, piecewise constant. Or too many that do."""
        facts = self.roles.facts
        if self.crowd:
            return self._crowded()
        numbers = [
            name
            for name in self.roles.of(OBSERVATION)
            if facts[name].width is None and facts[name].kind == NUMBER
        ]
        likely = [name for name in numbers if facts[name].at_ends >= AT_ENDS]
        likely += [name for name in numbers if 0 < facts[name].changes < 0.5 and name not in likely]
        candidates = []
        for name in likely[:3]:
            row: dict[str, Any] = {"name": self.names[name], "column": name}
            row["low"], row["high"] = _bounds(facts[name], facts[name].low, facts[name].high)
            reason = f"{facts[name].at_ends:.0%} of the rows at an end; remove it from obs"
            candidates.append(Candidate(line=f"action = [{toml(row)}]", reason=reason))
        text = (
            "Which columns are the commands to the actuators, and what do these take? No name "
            'tells. As in: action = [{name = "drive", column = "...", low = -1.0, high = 1.0}]'
        )
        return Question(text=text, candidates=tuple(candidates))

    def _crowded(self) -> Question:
        """Many columns are named like commands; those of one topic or array belong together."""
        groups: dict[str, list[str]] = {}
        for name in self.crowd:
            stem = name.rpartition(".")[0] or name.rstrip("0123456789[]_ ")
            groups.setdefault(stem, []).append(name)
        candidates = []
        for stem, names in sorted(groups.items(), key=lambda group: -len(group[1]))[:SHOWN]:
            rows = []
            for name in names:
                for row, low, high, _ in self._commands(name):
                    ends = _bounds(self.roles.facts[name], low, high)
                    rows.append({**row, "low": ends[0], "high": ends[1]})
            reason = f"those of {stem}; correct the bounds"
            candidates.append(Candidate(line=f"action = {toml(rows)}", reason=reason))
        text = (
            f"Which columns are the commands to the actuators, and what do these take? "
            f"{len(self.crowd)} have names like commands."
        )
        return Question(text=text, candidates=tuple(candidates))

    def _commands(self, name: str) -> Iterator[tuple[dict[str, Any], float, float, str]]:
        """A row of the map for a command, or one for each number of an array."""
        facts = self.roles.facts[name]
        note = f"{facts.at_ends:.1%} of the rows at an end, " if facts.width is None else ""
        lows, highs = facts.lows, facts.highs
        spans = [max(abs(low), abs(high)) for low, high in zip(lows, highs, strict=True)]
        alike = not spans or max(spans) <= ALIKE * min(spans) or len(spans) > MOST_COMPONENTS
        if alike:
            yield self._signal(name), facts.low, facts.high, note
            return
        for number, (low, high) in enumerate(zip(lows, highs, strict=True)):
            row = {"name": f"{self.names[name]}_{number}", "column": f"{name}[{number}]"}
            yield row, low, high, f"number {number}, "

    def _command_line(
        self, row: dict[str, Any], facts: Facts, seen: tuple[float, float], note: str
    ) -> Line:
        declared = self.declaration.action_low is not None
        if declared and self.declaration.action_high is not None:
            return Line(text=f"  {toml(row)},", reason="its bounds are in the file")
        ends = _bounds(facts, *seen)
        text = f"What does the actuator take? {note}seen {seen[0]:.6g} to {seen[1]:.6g}."
        answer = {**row, "low": ends[0], "high": ends[1]}
        question = _question(text, [Candidate(line=f"  {toml(answer)},")])
        return Line(text=f"  {toml({**row, 'low': OPEN, 'high': OPEN})},", question=question)

    def _signals(self) -> Iterator[Line]:
        """What the limit may read beside observations."""
        # The column of a cost that the format has is no signal.
        names = [name for name in self.alarms if name != self.declaration.layout.cost_column]
        if not names:
            return
        yield Line(text="")
        yield Line(text="signal = [", reason="what the limit may read beside obs")
        for name in names:
            yield Line(text=f"  {toml(self._signal(name))},", reason=self.roles.reason(name))
        yield Line(text="]")

    def _uses_step(self) -> bool:
        """Steps show missing rows only where there is no time, and only if they never leap."""
        step = self.roles.first(STEP)
        if step is None or self.roles.first(TIMES) is not None:
            return False
        values = self.roles.sample.values(step)
        passed = (values[1:] - values[:-1])[self.roles.within()]
        return bool((passed == 1).all())

    def _columns(self) -> Iterator[Line]:
        roles = self.roles
        yield Line(text="")
        yield Line(text="[columns]")
        task, episode, time = roles.first(TASK), roles.first(EPISODE), roles.first(TIMES)
        for key, name in (("task", task), ("episode", episode), ("time", time)):
            if name is not None:
                yield Line(text=f"{key} = {toml(name)}", reason=self._column_reason(key, name))
        if self._uses_step():
            step = roles.first(STEP)
            yield Line(text=f"step = {toml(step)}", reason=roles.reason(step or ""))
        for role in (REWARD, TERMINATED, TRUNCATED):
            name = roles.first(role)
            if name is not None:
                yield Line(text=f"{role} = {toml(name)}", reason=roles.reason(name))
        done = roles.first(DONE)
        if done is not None and episode is None:
            candidates = [
                Candidate(line=f"truncated = {toml(done)}", reason="the recording ends there"),
                Candidate(line=f"terminated = {toml(done)}", reason="the task is over there"),
            ]
            text = f"What does {done!r} mean? If the task is over, nothing can go wrong after it."
            key = "truncated" if roles.first(TRUNCATED) is None else "terminated"
            candidates = candidates if roles.first(TRUNCATED) is None else candidates[1:]
            yield Line(text=f"{key} = {toml(OPEN)}", question=_question(text, candidates))
        elif episode is None and not roles.of(TERMINATED, TRUNCATED):
            # A comment alone: there is nothing to map.
            gaps = time is not None or any(file.makes_time for file in self.descriptions)
            what = "a gap in time begins an episode" if gaps else "each file is an episode"
            yield Line(text=f"# No column numbers the runs: {what}.")

    def _column_reason(self, key: str, name: str) -> str:
        reason = self.roles.reason(name)
        if key != "time" or self.clock is None:
            return reason
        for count, what in (
            (self.clock.backwards, "runs backwards"),
            (self.clock.repeated, "stands still"),
        ):
            if count:
                reason += f"; {what} {count} times"
        return reason

    def _contacts(self) -> Iterator[Line]:
        """Where rows are made of messages, an alarm between two rows must not be lost."""
        if not any(file.makes_time for file in self.descriptions):
            return
        for name in self.alarms:
            yield Line(text=f"[resample.topics.{toml(name)}]")
            yield Line(text='method = "max"', reason="an alarm between two rows counts")

    def _cost(self) -> Iterator[Line]:
        facts, names = self.roles.facts, self.names
        candidates = []
        for name in self.roles.of(COST):
            if facts[name].binary:
                candidates.append(Candidate(line=f"column = {toml(name)}", reason="0 or 1"))
        over = {name: f"{names[name]} > {_threshold(facts[name])}" for name in self.alarms}
        alarms, rare = self.roles.of(ALARM), self.roles.of(RARE)
        groups = [alarms] if len(alarms) > 1 else []
        groups += [[name] for name in (*alarms, *self.roles.of(COST), *rare)]
        for group in groups[:SHOWN]:
            limit = " or ".join(over[name] for name in group[:SHOWN])
            reason = self.roles.reason(group[0]) if len(group) == 1 else "whichever comes first"
            candidates.append(Candidate(line=f"limit = {toml(limit)}", reason=reason))
        observed = self.roles.of(OBSERVATION)
        meanwhile = None
        if not candidates and observed:
            meanwhile = f"limit = {toml(f'{self._readable(observed[0])} > {NEVER}')}"
        text = (
            "Which states violate the constraint? A limit on signals, or a column of zeros and "
            'ones. As in: limit = "abs(tilt) > 0.5 or bumper > 0.5"'
        )
        yield Line(text="")
        yield Line(text="[cost]")
        if self.declaration.layout.cost_column in self.roles.of(COST):
            cost = self.declaration.layout.cost_column
            yield Line(text=f"column = {toml(cost)}", reason=FORMAT_SAYS)
            return
        question = Question(text=text, candidates=tuple(candidates), meanwhile=meanwhile)
        yield Line(text=f"limit = {toml(OPEN)}", question=question)

    def _readable(self, name: str) -> str:
        index = "" if self.roles.facts[name].width in (None, 1) else "[0]"
        return f"{self.names[name]}{index}"

    def _new_robot(self) -> Iterator[Line]:
        if len(self.robots) < 2:
            return
        likely = [name for name in self.robots if _has_word(name, NEW_ROBOT)]
        others = [name for name in self.robots if name not in likely]
        candidates = [Candidate(line=f"test = {toml(name)}") for name in (*likely, *others)[:SHOWN]]
        meanwhile = None if likely else "# test: no robot is new"
        text = (
            "Which robot is the new one, that the others' logs are to protect? If none is, remove "
            "the line."
        )
        question = Question(text=text, candidates=tuple(candidates), meanwhile=meanwhile)
        yield Line(text="")
        yield Line(text="[tasks]")
        yield Line(text=f"test = {toml(OPEN)}", question=question)


def _question(text: str, candidates: Sequence[Candidate]) -> Question:
    return Question(text=text, candidates=tuple(candidates))


def _bounds(facts: Facts, low: float, high: float) -> tuple[float, float]:
    """Bounds to propose: those that were seen where many rows lie there, else round ones beyond."""
    round_ends = all(end == float(f"{end:.3g}") for end in (low, high))
    if facts.width is None and facts.at_ends >= AT_ENDS and round_ends and low < high:
        return low, high
    if low < 0 < high and max(-low, high) <= 2 * min(-low, high):
        end = bound(max(-low, high))
        return -end, end
    ends = (bound(min(low, 0.0)), bound(max(high, 0.0)))
    return ends if ends[0] < ends[1] else (ends[0] - 1.0, ends[1] + 1.0)


def _threshold(facts: Facts) -> str:
    return "0.5" if facts.binary else "0"


def _is_unit(unit: str) -> bool:
    return unit not in ("", OPEN) and unit.isprintable() and len(unit) <= 40


def _has_word(name: str, words: Sequence[str]) -> bool:
    parts = "".join(sign if sign.isalpha() else " " for sign in name.lower()).split()
    return any(word in parts for word in words)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _common_folder(paths: Sequence[Path]) -> Path:
    folders = [path.absolute().parent for path in paths]
    common = folders[0]
    while any(common != folder and common not in folder.parents for folder in folders):
        common = common.parent
    return common
