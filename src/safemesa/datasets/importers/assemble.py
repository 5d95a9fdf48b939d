"""Raw rows become transitions: episodes, next observations, costs and ends.

A row of `rows = "steps"` is a step: reward, cost and ends are what the step led to, and
observations are from before it. A row of `rows = "states"` is a moment: the step from one row to
the next has the action of the first and the reward, cost and ends of the second.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from safemesa.datasets.findings import Finding
from safemesa.datasets.importers.cell_rules import CellRules
from safemesa.datasets.importers.import_map import CUT
from safemesa.datasets.importers.plan import Plan, is_steps
from safemesa.datasets.importers.rows import RawRows, join_rows, take_rows

LARGEST_JITTER = 0.5
"""Part of dt by which a row may come early or late."""
LARGEST_DEVIATION = 0.05
"""Part of dt by which the typical spacing of rows may differ from it."""
ENOUGH_ROWS = 20
"""Fewer say nothing about what is typical."""
FEWEST_PAIRS = 3
COST, TERMINATED, TRUNCATED = 0, 1, 2

Report = Callable[[Finding], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Steps:
    """Transitions of one task in order, not yet checked: float64, NaN where unknown."""

    task: str
    obs: Float[np.ndarray, "n obs"]
    action: Float[np.ndarray, "n act"]
    reward: Float[np.ndarray, " n"]
    cost: Float[np.ndarray, " n"]
    next_obs: Float[np.ndarray, "n obs"]
    terminated: Float[np.ndarray, " n"]
    truncated: Float[np.ndarray, " n"]
    episode: Int[np.ndarray, " n"]
    step: Int[np.ndarray, " n"]
    last: Bool[np.ndarray, " n"]
    """Whether the step is its episode's last."""
    label: np.ndarray
    """The episode as the file names it."""
    row: Int[np.ndarray, " n"]
    file: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        """Number of transitions."""
        return len(self.row)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Marks:
    """What is decided about each row."""

    base: Bool[np.ndarray, " n"]
    """A new episode by what the file says: its label, an end before, another file."""
    starts: Bool[np.ndarray, " n"]
    """A new episode, also where rows are missing and the map says to split."""
    gone: Bool[np.ndarray, " n"]
    """At or after the first state of its episode that violates, where the map cuts there."""

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.base)


class TaskAssembler:
    """Makes the transitions of one task; two rows wait until what follows them is known.

    In this order: episodes as the file says; missing cells; what follows a violation is cut; gaps
    split. So a gap within a stop that stays on begins no episode that starts in a violation.
    """

    def __init__(self, task: str, plan: Plan, files: list[str], report: Report) -> None:
        self.task = task
        self.plan = plan
        self.files = files
        self.report = report
        self._cells = CellRules(plan)
        self._before: RawRows | None = None
        self._waiting: RawRows | None = None
        nothing = np.zeros(0, np.bool_)
        self._marks = _Marks(base=nothing, starts=nothing, gone=nothing)
        self._episode = -1
        self._next_step = 0
        self._offset = 0
        self._numbered_file = -1
        self._pairs = np.zeros(2, np.int64)
        """Pairs of rows that are not dt apart, and all pairs."""
        self._labels: set[tuple[int, str]] = set()

    def feed(self, rows: RawRows) -> Iterator[Steps]:
        """Adds rows; yields the transitions that are certain now."""
        if not len(rows):
            return
        base = self._begins(rows)
        self._before = take_rows(rows, np.asarray([len(rows) - 1]))
        rows, base = self._cells.apply(rows, base, self._tell)
        if len(rows):
            yield from self._advance(rows, base, final=False)

    def finish(self) -> Iterator[Steps]:
        """Yields the rest."""
        if self._waiting is not None and len(self._waiting):
            yield from self._advance(None, np.zeros(0, np.bool_), final=True)

    def _advance(
        self, new: RawRows | None, base: Bool[np.ndarray, " new"], final: bool
    ) -> Iterator[Steps]:
        rows = join_rows([one for one in (self._waiting, new) if one is not None])
        marks = self._mark(rows, base)
        count = len(rows) if final else max(len(rows) - 2, 0)
        if count:
            yield from self._transitions(rows, marks, count)
        keep = slice(count, None)
        self._waiting, self._marks = take_rows(rows, keep), take_rows(marks, keep)

    def _begins(self, new: RawRows) -> Bool[np.ndarray, " n"]:
        """Whether each row begins an episode, by what the file says."""
        rows = new if self._before is None else join_rows([self._before, new])
        begins = rows.file[1:] != rows.file[:-1]
        ended = (rows.flags[:-1, TERMINATED:] == 1).any(axis=1)
        if begins.any() and not self.plan.numbered:
            begins &= ~self._goes_on(rows)
        if rows.episode is not None:
            begins |= rows.episode[1:] != rows.episode[:-1]
            if not self.plan.numbered:
                # With `cut` what follows an end is left out, if the end is a violation.
                over = ended & ~begins
                if self.plan.map.after_violation == CUT:
                    over &= rows.flags[:-1, COST] != 1
                self._tell(rows, np.flatnonzero(over) + 1, "continues-after-end")
        else:
            begins |= ended
        return begins if self._before is not None else np.concatenate([[True], begins])

    def _goes_on(self, rows: RawRows) -> Bool[np.ndarray, " pairs"]:
        """Whether time or step go on over the end of a file: recorders cut long logs in chunks."""
        dt = self.plan.map.dt
        if rows.step is not None:
            return rows.step[1:] - rows.step[:-1] == 1
        if rows.time is None or dt is None:
            return np.zeros(len(rows) - 1, np.bool_)
        passed = rows.time[1:] - rows.time[:-1]
        return (passed > 0) & (passed <= (1 + LARGEST_JITTER) * dt)

    def _mark(self, rows: RawRows, base: Bool[np.ndarray, " new"]) -> _Marks:
        """Decides about the rows that are new; the first ones are decided already."""
        known = len(self._marks)
        base = np.concatenate([self._marks.base, base])
        gone = self._gone(rows, base, known)
        first = max(known, 1)
        new, before = slice(first, None), slice(first - 1, len(rows) - 1)
        starts = base.copy()
        starts[:known] = self._marks.starts
        # What comes after a cut is not looked at.
        inside = ~base[new] & ~gone[before]
        if rows.time is not None:
            starts[new] |= self._time_breaks(rows, new, before, inside)
        if rows.episode is not None:
            self._check_pieces(rows, starts, known)
        if rows.step is not None:
            jump = inside & (rows.step[new] - rows.step[before] != 1)
            self._tell(rows, np.flatnonzero(jump) + first, "step-jump")
        return _Marks(base=base, starts=starts, gone=gone)

    def _gone(
        self, rows: RawRows, base: Bool[np.ndarray, " n"], known: int
    ) -> Bool[np.ndarray, " n"]:
        """Whether a row, or one before it in its episode, is in a state that violates."""
        if self.plan.map.after_violation != CUT:
            return np.zeros(len(rows), np.bool_)
        if is_steps(self.plan):
            after = np.arange(len(rows))
            next_obs, reached = self._next_obs(rows, np.append(~base[1:], False))
            cost = self._cost(rows, next_obs, after, reached)
            violates = np.append(False, cost[:-1] == 1)
        else:
            violates = self._state_cost(rows) == 1
        # An episode that starts in one goes on until a step reaches one.
        violates &= ~base
        violates[:known] = self._marks.gone
        so_far = np.cumsum(violates)
        begin = np.maximum.accumulate(np.where(base, np.arange(len(rows)), 0))
        return so_far > np.where(base[begin], so_far[begin], 0)

    def _time_breaks(
        self, rows: RawRows, new: slice, before: slice, inside: Bool[np.ndarray, " n"]
    ) -> Bool[np.ndarray, " n"]:
        """Rows before which others are missing, where the map says to split there."""
        assert rows.time is not None
        with np.errstate(invalid="ignore"):
            passed = rows.time[new] - rows.time[before]
        first, dt = new.start, self.plan.map.dt
        self._tell(rows, np.flatnonzero(inside & (passed < 0)) + first, "time-backwards")
        self._tell(rows, np.flatnonzero(inside & (passed == 0)) + first, "time-repeated")
        lost = inside & ~np.isfinite(passed)
        self._tell(rows, np.flatnonzero(lost) + first, "missing-value", "time")
        if dt is None:
            return np.zeros(len(passed), np.bool_)
        forward = inside & (passed > 0)
        off = forward & (np.abs(passed - dt) > LARGEST_JITTER * dt)
        typical = float(np.median(passed[forward])) if forward.any() else dt
        drifts = abs(typical - dt) > LARGEST_DEVIATION * dt and forward.sum() >= ENOUGH_ROWS
        self._pairs += np.asarray([off.sum(), forward.sum()])
        # With most rows off, the declared dt is wrong and no single row is to blame. Blocks can be
        # as short as a row, so what came before counts too.
        mostly = self._pairs[0] > 0.5 * self._pairs[1] and self._pairs[1] >= FEWEST_PAIRS
        if drifts or (forward.any() and mostly):
            detail = f"typically {typical:.6g} s apart, dt is {dt:.6g}"
            blamed = np.flatnonzero(off if off.any() else forward)[:1]
            self._tell(rows, blamed + first, "wrong-dt", "time", detail)
            return np.zeros(len(passed), np.bool_)
        gap = off & (passed > dt)
        early = np.flatnonzero(off & (passed < dt)) + first
        self._tell(rows, early, "uneven-time", "time", f"dt is {dt:.6g} s")
        if self.plan.map.gaps == "split":
            return gap
        where = np.flatnonzero(gap)
        detail = f"{passed[where[0]]:.6g} s after the row before" if len(where) else ""
        self._tell(rows, where + first, "time-gap", "time", detail)
        return np.zeros(len(passed), np.bool_)

    def _check_pieces(self, rows: RawRows, starts: Bool[np.ndarray, " n"], known: int) -> None:
        """An episode label may begin once per file; a gap may cut it."""
        assert rows.episode is not None
        changed = starts.copy()
        changed[1:] &= (rows.episode[1:] != rows.episode[:-1]) | (rows.file[1:] != rows.file[:-1])
        for index in np.flatnonzero(changed):
            if index < known:
                continue
            key = (int(rows.file[index]), str(rows.episode[index]))
            if key in self._labels:
                self._tell(rows, np.asarray([index]), "episode-in-pieces")
            self._labels.add(key)

    def _next_obs(
        self, rows: RawRows, follows: Bool[np.ndarray, " n"]
    ) -> tuple[Float[np.ndarray, "n obs"], Bool[np.ndarray, " n"]]:
        """The observation that each row's step reached, and whether the log shows it."""
        if rows.next_obs is not None:
            return rows.next_obs, np.ones(len(rows), np.bool_)
        return rows.obs[np.minimum(np.arange(len(rows)) + 1, len(rows) - 1)], follows

    def _transitions(self, rows: RawRows, marks: _Marks, count: int) -> Iterator[Steps]:
        """The transitions of the first `count` rows; later rows only show what followed."""
        total = len(rows)
        starts, gone = marks.starts, marks.gone
        follows = np.append(~starts[1:], False)
        steps = is_steps(self.plan)
        after = np.arange(total) if steps else np.minimum(np.arange(total) + 1, total - 1)
        next_obs, reached = self._next_obs(rows, follows)
        cost = self._cost(rows, next_obs, after, reached if steps else follows)
        terminated, truncated = rows.flags[after, TERMINATED], rows.flags[after, TRUNCATED]
        if steps:
            # What the last step led to matters only if the bootstrap does not go on from there.
            blind = np.isnan(cost) & (self.plan.limit is not None)
            certain = (cost == 1) | ((terminated == 1) & ~blind)
            real = reached | certain
            next_obs = np.where((real & ~reached)[:, None], rows.obs, next_obs)
        else:
            real = follows
        self._tell(rows, np.flatnonzero((real & gone)[:count]), "after-violation")
        real = real & ~gone
        last = real & ~follows
        last[:-1] |= real[:-1] & follows[:-1] & ~real[1:] & (~follows[1:] | gone[1:])
        terminated, truncated = self._ends(cost, terminated, truncated, last)
        self._tell_of_endings(rows, marks, real, follows, cost, count)
        episode, step = self._numbers(rows, starts, count)
        chosen = np.flatnonzero(real[:count])
        if not len(chosen):
            return
        label = episode if rows.episode is None else rows.episode[:count]
        yield Steps(
            task=self.task,
            obs=rows.obs[chosen],
            action=rows.action[chosen],
            reward=rows.reward[after][chosen],
            cost=cost[chosen],
            next_obs=next_obs[chosen],
            terminated=terminated[chosen],
            truncated=truncated[chosen],
            episode=episode[chosen],
            step=step[chosen],
            last=last[chosen],
            label=label[chosen],
            row=rows.row[chosen],
            file=rows.file[chosen],
        )

    def _cost(
        self,
        rows: RawRows,
        next_obs: np.ndarray,
        after: np.ndarray,
        known: Bool[np.ndarray, " n"],
    ) -> Float[np.ndarray, " n"]:
        """The cost of each step: the column's, or the limit at the state that is reached."""
        limit = self.plan.limit
        if limit is None:
            return rows.flags[after, COST]
        reads_obs = any(one.name in limit.signals for one in self.plan.obs)
        values = {one.name: next_obs[:, i] for i, one in enumerate(self.plan.obs)}
        further = rows.measured[after]
        values |= {one.name: further[:, i] for i, one in enumerate(self.plan.signals)}
        cost = limit.violated(values)
        return np.where(known, cost, np.nan) if reads_obs else cost

    def _ends(
        self,
        cost: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        last: Bool[np.ndarray, " n"],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ends that the logs do not have: a violation terminates, anything else truncates."""
        names = self.plan.map.columns
        if names.terminated is None:
            terminated = (last & (cost == 1)).astype(np.float64)
        if names.truncated is None:
            truncated = (last & (terminated != 1)).astype(np.float64)
        elif not self.plan.numbered:
            truncated = np.where(last & (terminated != 1), 1.0, truncated)
        if self.plan.map.after_violation == CUT:
            terminated = np.where(cost == 1, 1.0, terminated)
            truncated = np.where(cost == 1, 0.0, truncated)
        return terminated, truncated

    def _numbers(
        self, rows: RawRows, starts: Bool[np.ndarray, " n"], count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Episode and step of the first `count` rows."""
        if self.plan.numbered and rows.episode is not None and rows.step is not None:
            return self._own_numbers(rows, count), _whole(rows.step[:count])
        first = starts[:count]
        episode = self._episode + np.cumsum(first)
        position = np.arange(count)
        begin = np.maximum.accumulate(np.where(first, position, -1))
        step = np.where(begin >= 0, position - begin, position + self._next_step)
        self._episode, self._next_step = int(episode[-1]), int(step[-1]) + 1
        return episode, step

    def _own_numbers(self, rows: RawRows, count: int) -> Int[np.ndarray, " count"]:
        """Episode numbers of a recording, moved on where a second one repeats them."""
        assert rows.episode is not None
        digits = [str(one) if str(one).isdecimal() else "-1" for one in rows.episode[:count]]
        own = _whole(np.asarray(digits, np.float64))
        for number in np.unique(rows.file[:count]):
            here = rows.file[:count] == number
            if number != self._numbered_file:
                repeats = self._numbered_file >= 0 and own[here][0] <= self._episode
                self._offset = self._episode + 1 - int(own[here][0]) if repeats else 0
                self._numbered_file = int(number)
            own[here] += self._offset
            self._episode = int(own[here][-1])
        return own

    def _tell_of_endings(
        self,
        rows: RawRows,
        marks: _Marks,
        real: Bool[np.ndarray, " n"],
        follows: Bool[np.ndarray, " n"],
        cost: np.ndarray,
        count: int,
    ) -> None:
        own = (np.arange(len(rows)) < count) & ~marks.gone
        after_gap = marks.starts & ~marks.base
        if is_steps(self.plan):
            unknown = ~real & (np.isnan(cost) | (self.plan.limit is not None))
            self._tell(rows, np.flatnonzero(own & unknown), "lost-endings")
            return
        violates = self._state_cost(rows) == 1
        begins_badly = own & marks.starts & follows & violates
        self._tell(rows, np.flatnonzero(begins_badly), "starts-in-violation", "cost")
        alone = own & marks.starts & ~follows
        # Rows that are lost just before a crash are no fault of the labels.
        lost = alone & violates & after_gap
        lost |= (np.arange(len(rows)) < count) & marks.gone & after_gap & violates
        self._tell(rows, np.flatnonzero(lost), "violation-after-gap", "cost")
        self._tell(rows, np.flatnonzero(alone & violates & ~after_gap), "lost-violation", "cost")
        self._tell(rows, np.flatnonzero(alone & ~violates), "lone-row")

    def _state_cost(self, rows: RawRows) -> np.ndarray:
        """Whether a row's own state violates, where rows are moments."""
        here = np.arange(len(rows))
        return self._cost(rows, rows.obs, here, np.ones(len(rows), np.bool_))

    def _tell(
        self, rows: RawRows, where: np.ndarray, code: str, column: str = "", detail: str = ""
    ) -> None:
        """Reports a finding at the first of `where`, and how many there are."""
        if not len(where):
            return
        index = int(where[0])
        self.report(
            Finding(
                code=code,
                file=self.files[int(rows.file[index])],
                task=self.task,
                episode="" if rows.episode is None else str(rows.episode[index]),
                row=int(rows.row[index]),
                column=column,
                count=len(where),
                detail=detail,
            )
        )


def _whole(values: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Numbers of episodes or steps; -1, which no check lets pass, for what cannot be one."""
    sound = np.abs(values) < 2**31
    return np.where(sound, values, -1).astype(np.int64)
