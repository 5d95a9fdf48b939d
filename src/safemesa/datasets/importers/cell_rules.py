"""What the map says of missing cells and of actions beyond their bounds, applied to raw rows."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from safemesa.datasets.importers.import_map import CLIP, DROP, HOLD, SPLIT
from safemesa.datasets.importers.plan import Plan, Reference
from safemesa.datasets.importers.rows import RawRows, take_rows

Tell = Callable[..., None]
"""Called with (rows, positions, code, column, detail)."""
COST = 0
MATRICES = ("obs", "next_obs", "action", "measured")


class CellRules:
    """Remembers the last known values of one task, for `missing = "hold"`."""

    def __init__(self, plan: Plan) -> None:
        """Reads which rule holds for which signal."""
        self.plan = plan
        self._references: dict[str, Sequence[Reference]] = {
            "obs": plan.obs,
            "next_obs": plan.next_obs,
            "action": plan.action,
            "measured": plan.signals,
        }
        self._rules = {
            name: np.asarray([one.missing for one in references], np.str_)
            for name, references in self._references.items()
        }
        every = {one.missing for references in self._references.values() for one in references}
        self._none = every <= {"error"} and plan.map.missing == "error"
        self._split_next = False
        self._held: dict[str, np.ndarray] = {}

    def apply(
        self, rows: RawRows, begins: Bool[np.ndarray, " n"], tell: Tell
    ) -> tuple[RawRows, Bool[np.ndarray, " kept"]]:
        """The rows as the map wants them, and which of them begin an episode."""
        if self.plan.map.outside == CLIP:
            rows = self._clipped(rows, tell)
        if self._none:
            return rows, begins
        for name in MATRICES:
            if (self._rules[name] == HOLD).any():
                rows = replace(rows, **{name: self._filled(rows, name, begins, tell)})
        return self._dropped(rows, begins, tell)

    def _clipped(self, rows: RawRows, tell: Tell) -> RawRows:
        action = rows.action
        for index, one in enumerate(self.plan.action):
            values = action[:, index]
            outside = np.isfinite(values) & ((values < one.low) | (values > one.high))
            if outside.any():
                largest = np.abs(values[outside]).max()
                detail = f"up to {largest:.4g}, clipped to [{one.low:.4g}, {one.high:.4g}]"
                tell(rows, np.flatnonzero(outside), "clipped-action", one.name, detail)
                action = action.copy() if action is rows.action else action
                action[outside, index] = np.clip(values[outside], one.low, one.high)
        return replace(rows, action=action)

    def _filled(
        self, rows: RawRows, name: str, begins: Bool[np.ndarray, " n"], tell: Tell
    ) -> Float[np.ndarray, "n k"]:
        """Missing cells take the value before them in their episode, if there is one."""
        values = getattr(rows, name)
        hold = self._rules[name] == HOLD
        missing = np.isnan(values) & hold
        if missing.any():
            values = self._forward(values, missing, begins, self._held.get(name))
            for index in np.flatnonzero(missing.any(axis=0)).tolist():
                held = missing[:, index] & ~np.isnan(values[:, index])
                reads = self.plan.limit is not None and (
                    self._references[name][index].name in self.plan.limit.signals
                )
                detail = "the limit reads it: the cost of these rows is that of the held value"
                column = self._references[name][index].name
                tell(rows, np.flatnonzero(held), "held-value", column, detail if reads else "")
        self._held[name] = values[-1].copy()
        return values

    @staticmethod
    def _forward(
        values: np.ndarray, missing: np.ndarray, begins: np.ndarray, before: np.ndarray | None
    ) -> np.ndarray:
        position = np.arange(len(values))[:, None]
        begin = np.maximum.accumulate(np.where(begins, np.arange(len(values)), -1))[:, None]
        known = np.maximum.accumulate(np.where(np.isnan(values), -1, position), axis=0)
        inside = known >= np.maximum(begin, 0)
        source = np.take_along_axis(values, np.maximum(known, 0), axis=0)
        filled = np.where(missing & inside, source, values)
        if before is not None:
            # The episode began in an earlier block.
            older = missing & ~inside & (begin < 0)
            filled = np.where(older, before[None], filled)
        return filled

    def _dropped(
        self, rows: RawRows, begins: Bool[np.ndarray, " n"], tell: Tell
    ) -> tuple[RawRows, Bool[np.ndarray, " kept"]]:
        count = len(rows)
        gone, splits = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
        for name in MATRICES:
            values = getattr(rows, name)
            if values is None or not values.shape[1]:
                continue
            missing = np.isnan(values)
            gone |= (missing & np.isin(self._rules[name], (DROP, SPLIT))).any(axis=1)
            splits |= (missing & (self._rules[name] == SPLIT)).any(axis=1)
        if rows.time is not None and self.plan.map.missing in (DROP, SPLIT):
            unknown = np.isnan(rows.time)
            gone |= unknown
            splits |= unknown & (self.plan.map.missing == SPLIT)
        tell(rows, np.flatnonzero(gone), "dropped-row")
        bad = gone & (rows.flags[:, COST] == 1)
        tell(rows, np.flatnonzero(bad), "dropped-violation", "cost")
        # The next row that stays begins an episode if any of those before it would have.
        begins = begins.copy()
        begins[0] |= self._split_next
        begins[1:] |= splits[:-1]
        self._split_next = bool(splits[-1])
        kept = np.flatnonzero(~gone)
        passed = np.cumsum(begins)
        before = np.append(0, passed[kept][:-1]) if len(kept) else passed[:0]
        first = passed[kept] > before
        last = int(kept[-1]) if len(kept) else -1
        self._split_next |= bool(begins[last + 1 :].any())
        return (take_rows(rows, kept), first) if gone.any() else (rows, begins)
