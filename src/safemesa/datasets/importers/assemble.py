"""Raw rows become transitions: episodes, next observations, costs and ends.

A row of `rows = "steps"` is a step: reward, cost and ends are what the step led to, and
observations are from before it. A row of `rows = "states"` is a moment: the step from one row to
the next has the action of the first and the reward, cost and ends of the second.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from safemesa.datasets.findings import Finding
from safemesa.datasets.importers.import_map import CUT
from safemesa.datasets.importers.plan import Plan, is_steps
from safemesa.datasets.importers.rows import RawRows, join_rows, take_rows

LARGEST_JITTER = 0.5
"""Part of dt by which a row may come early or late."""
LARGEST_DEVIATION = 0.05
"""Part of dt by which the typical spacing of rows may differ from it."""
ENOUGH_ROWS = 20
"""Fewer say nothing about what is typical."""
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


class TaskAssembler:
    """Makes the transitions of one task; two rows wait until what follows them is known."""

    def __init__(self, task: str, plan: Plan, files: list[str], report: Report) -> None:
        self.task = task
        self.plan = plan
        self.files = files
        self.report = report
        self._waiting: RawRows | None = None
        self._waiting_starts = np.ones(0, np.bool_)
        self._episode = -1
        self._next_step = 0
        self._cut_episode = -1
        self._labels: set[tuple[int, str]] = set()

    def feed(self, rows: RawRows) -> Iterator[Steps]:
        """Adds rows; yields the transitions that are certain now."""
        yield from self._advance(rows, final=False)

    def finish(self) -> Iterator[Steps]:
        """Yields the rest."""
        if self._waiting is not None:
            yield from self._advance(None, final=True)

    def _advance(self, new: RawRows | None, final: bool) -> Iterator[Steps]:
        parts = [one for one in (self._waiting, new) if one is not None]
        rows = join_rows(parts)
        known = len(self._waiting_starts)
        starts = self._starts(rows, known)
        count = len(rows) if final else max(len(rows) - 2, 0)
        if count:
            for steps in self._transitions(rows, starts, count):
                kept = self._cut(steps) if self.plan.map.after_violation == CUT else steps
                if len(kept):
                    yield kept
        keep = slice(count, None)
        self._waiting, self._waiting_starts = take_rows(rows, keep), starts[keep]

    def _starts(self, rows: RawRows, known: int) -> Bool[np.ndarray, " n"]:
        """Whether each row begins an episode; the first `known` are decided already."""
        starts = np.zeros(len(rows), np.bool_)
        starts[:known] = self._waiting_starts
        if known == 0 and len(rows):
            starts[0] = True
        new = slice(max(known, 1), None)
        before = slice(max(known, 1) - 1, len(rows) - 1)
        begins = rows.file[new] != rows.file[before]
        ended = (rows.flags[before, TERMINATED:] == 1).any(axis=1)
        if rows.episode is not None:
            begins |= rows.episode[new] != rows.episode[before]
        else:
            begins |= ended
        if rows.time is not None:
            begins |= self._time_breaks(rows, new, before, begins)
        starts[new] = begins
        if rows.episode is not None:
            self._check_pieces(rows, starts, known)
            if not self.plan.numbered:
                over = ended & ~begins
                self._tell(rows, np.flatnonzero(over) + max(known, 1), "continues-after-end")
        if rows.step is not None:
            jump = ~begins & (rows.step[new] - rows.step[before] != 1)
            self._tell(rows, np.flatnonzero(jump) + max(known, 1), "step-jump")
        return starts

    def _time_breaks(
        self, rows: RawRows, new: slice, before: slice, begins: Bool[np.ndarray, " n"]
    ) -> Bool[np.ndarray, " n"]:
        """Rows before which others are missing, where the map says to split there."""
        assert rows.time is not None
        passed = rows.time[new] - rows.time[before]
        inside, first, dt = ~begins, new.start, self.plan.map.dt
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
        # With most rows off, the declared dt is wrong and no single row is to blame.
        if drifts or (forward.any() and off.sum() > 0.5 * forward.sum()):
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

    def _transitions(
        self, rows: RawRows, starts: Bool[np.ndarray, " n"], count: int
    ) -> Iterator[Steps]:
        """The transitions of the first `count` rows; later rows only show what followed."""
        total = len(rows)
        follows = np.zeros(total, np.bool_)
        follows[:-1] = ~starts[1:]
        following = np.minimum(np.arange(total) + 1, total - 1)
        steps = is_steps(self.plan)
        after = np.arange(total) if steps else following
        next_obs = rows.obs[following] if rows.next_obs is None else rows.next_obs
        reached = follows if rows.next_obs is None else np.ones(total, np.bool_)
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
        last = real & ~follows
        last[:-1] |= real[:-1] & follows[:-1] & ~real[1:] & ~follows[1:]
        self._tell_of_endings(rows, starts, real, follows, cost, count)
        terminated, truncated = self._ends(cost, terminated, truncated, last)
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
        return terminated, truncated

    def _numbers(
        self, rows: RawRows, starts: Bool[np.ndarray, " n"], count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Episode and step of the first `count` rows."""
        if self.plan.numbered and rows.episode is not None and rows.step is not None:
            return rows.episode[:count].astype(np.int64), rows.step[:count].astype(np.int64)
        first = starts[:count]
        episode = self._episode + np.cumsum(first)
        position = np.arange(count)
        begin = np.maximum.accumulate(np.where(first, position, -1))
        step = np.where(begin >= 0, position - begin, position + self._next_step)
        self._episode, self._next_step = int(episode[-1]), int(step[-1]) + 1
        return episode, step

    def _tell_of_endings(
        self,
        rows: RawRows,
        starts: Bool[np.ndarray, " n"],
        real: Bool[np.ndarray, " n"],
        follows: Bool[np.ndarray, " n"],
        cost: np.ndarray,
        count: int,
    ) -> None:
        own = np.zeros(len(rows), np.bool_)
        own[:count] = True
        if is_steps(self.plan):
            unknown = ~real & (np.isnan(cost) | (self.plan.limit is not None))
            self._tell(rows, np.flatnonzero(own & unknown), "lost-endings")
            return
        violates = self._state_cost(rows) == 1
        begins_badly = own & starts & follows & violates
        self._tell(rows, np.flatnonzero(begins_badly), "starts-in-violation", "cost")
        alone = own & starts & ~follows
        self._tell(rows, np.flatnonzero(alone & violates), "lost-violation", "cost")
        self._tell(rows, np.flatnonzero(alone & ~violates), "lone-row")

    def _cut(self, steps: Steps) -> Steps:
        """Ends each episode at its first violation; what follows there is left out."""
        bad = steps.cost == 1
        earlier = np.cumsum(bad) - bad
        begins = np.append(True, np.diff(steps.episode) != 0)
        start = np.maximum.accumulate(np.where(begins, np.arange(len(steps)), 0))
        gone = (earlier > earlier[start]) | (steps.episode == self._cut_episode)
        first = bad & ~gone
        if (gone | first)[-1]:
            self._cut_episode = int(steps.episode[-1])
        if gone.any():
            index = int(np.argmax(gone))
            self.report(
                Finding(
                    code="after-violation",
                    file=self.files[int(steps.file[index])],
                    task=self.task,
                    episode=str(steps.label[index]),
                    row=int(steps.row[index]),
                    count=int(gone.sum()),
                )
            )
        ended = replace(
            steps,
            terminated=np.where(first, 1.0, steps.terminated),
            truncated=np.where(first, 0.0, steps.truncated),
            last=steps.last | first,
        )
        return take_rows(ended, np.flatnonzero(~gone))

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
