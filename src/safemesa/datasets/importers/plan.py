"""From a map and the columns of a file: which numbers become which signal."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

from safemesa.core.errors import ConfigurationError, DatasetError
from safemesa.core.spaces import Spaces
from safemesa.datasets.findings import LogError
from safemesa.datasets.format import check_sound
from safemesa.datasets.importers.import_map import (
    MAXIMUM_SIGNALS,
    STEPS,
    ColumnNames,
    ImportMap,
    SignalMap,
)
from safemesa.datasets.importers.limit import Limit
from safemesa.datasets.importers.source import AbstractSource, Block, Declaration, no_column

_INDEXED = re.compile(r"(.+)\[(\d{1,6})\]")
_ENDINGS = frozenset(
    f"{before}{name}"
    for before in ("", "is_", "episode_")
    for name in (
        "done", "dones", "terminal", "terminals", "terminated", "terminations", "truncated",
        "truncations", "timeout", "timeouts", "end", "ends", "last", "absorbing",
    )
) - {"end", "ends", "last"}  # fmt: skip
"""Names of columns that say where episodes end; `done` does not say whether they are over."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """One signal in a block: a column, or one component of an array column."""

    name: str
    column: str
    index: int | None
    scale: float
    offset: float
    unit: str
    missing: str
    low: float | None = None
    high: float | None = None

    def read(self, block: Block) -> np.ndarray:
        """Converted values, float64 `[n]`."""
        values = np.asarray(block.columns[self.column])
        values = values if self.index is None else values[:, self.index]
        # What overflows, or is a NaN that signals, is found with all other such values.
        with np.errstate(all="ignore"):
            values = values.astype(np.float64)
            if self.scale == 1.0 and self.offset == 0.0:
                return values
            return self.scale * values + self.offset


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that is needed to turn blocks of one file into rows."""

    map: ImportMap
    obs: tuple[Reference, ...]
    next_obs: tuple[Reference, ...]
    """Empty where the next observation is the next row's."""
    action: tuple[Reference, ...]
    signals: tuple[Reference, ...]
    """What the limit reads beside observations."""
    limit: Limit | None
    numbered: bool
    unused: tuple[str, ...] = ()
    """Columns of the file that the map does not use, and is not told to ignore."""

    def number_columns(self) -> list[str]:
        """Columns that are read as numbers."""
        names = self.map.columns
        every = [*self.obs, *self.next_obs, *self.action, *self.signals]
        wanted = [one.column for one in every]
        wanted += [
            name
            for name in (
                self.map.cost_column,
                names.time,
                names.step,
                names.reward,
                names.terminated,
                names.truncated,
            )
            if name is not None
        ]
        return list(dict.fromkeys(wanted))

    def text_columns(self) -> list[str]:
        """Columns that are read as identifiers."""
        names = (self.map.columns.task, self.map.columns.episode)
        return list(dict.fromkeys(name for name in names if name is not None))


def make_plan(mapping: ImportMap, source: AbstractSource) -> Plan:
    """Resolves a map against a file's columns.

    Raises:
        ConfigurationError: the map leaves open what the file does not say.
        DatasetError: the file lacks a column.
    """
    try:
        return _resolved(mapping, source)
    except LogError as error:
        if error.code == "missing-column" and source.advice:
            raise LogError(error.code, f"{error} {source.advice}") from error
        raise


def _resolved(mapping: ImportMap, source: AbstractSource) -> Plan:
    declared = source.declaration()
    merged = merge_maps(mapping, declared.layout)
    where = str(source.path)
    _require_complete(merged, where)
    _require_time_step(merged, where)
    widths = source.widths()
    obs_names = action_names = None
    if declared.spaces is not None:
        obs_names = declared.spaces.obs_names if not mapping.obs else None
        action_names = declared.spaces.action_names if not mapping.action else None
    obs, next_obs = _observations(merged, widths, obs_names, where)
    action = _expand(merged, merged.action, widths, action_names, where)
    action = _bounded(action, declared, where)
    further = _expand(merged, merged.signal, widths, None, where)
    if len(obs) + len(action) > MAXIMUM_SIGNALS:
        raise ConfigurationError(
            f"{where}: {len(obs)} observations and {len(action)} actions, expected at most "
            f"{MAXIMUM_SIGNALS} together. Reduce images and scans to features first."
        )
    limit = merged.cost_limit
    if limit is not None:
        _check_limit(limit, obs, further, action)
        further = tuple(one for one in further if one.name in limit.signals)
    names = [getattr(merged.columns, one.name) for one in fields(ColumnNames)]
    for name in (*names, merged.cost_column):
        if name is not None and name not in widths:
            raise no_column([name], widths, where)
    plan = Plan(
        map=merged,
        obs=obs,
        next_obs=next_obs,
        action=action,
        signals=further if limit is not None else (),
        limit=limit,
        numbered=declared.numbered,
    )
    used = {*plan.number_columns(), *plan.text_columns(), *merged.ignore}
    # Of our own recordings everything is used, or kept beside what is.
    unused = () if declared.spaces is not None else source.leftovers(used)
    _require_ends(plan, unused, where)
    return replace(plan, unused=unused)


def _require_ends(plan: Plan, unused: tuple[str, ...], where: str) -> None:
    """A column that would have ended episodes is used, or left out on purpose."""
    if plan.map.columns.episode is not None:
        return
    ending = [name for name in unused if name.rpartition("/")[2].lower() in _ENDINGS]
    if ending:
        raise LogError(
            "unused-ends",
            f"{where}: without a column of the episode, those that say where one ends are needed, "
            f"and the map does not use {', '.join(map(repr, ending[:6]))}. Map it: "
            f'[columns] terminated = "{ending[0]}" if the task is over there (nothing follows), '
            f'truncated = "{ending[0]}" if only the recording ends; or declare '
            f'ignore = ["{ending[0]}"].',
        )


def plan_spaces(plan: Plan, horizon: int) -> Spaces:
    """The spaces that the rows of a plan have; `horizon` is used where none is declared.

    Raises:
        DatasetError: names repeat or bounds do not fit.
    """
    spaces = Spaces(
        obs_names=tuple(one.name for one in plan.obs),
        action_names=tuple(one.name for one in plan.action),
        action_low=tuple(_number(one.low) for one in plan.action),
        action_high=tuple(_number(one.high) for one in plan.action),
        horizon=plan.map.horizon or horizon,
        dt=1.0 if plan.map.dt is None else plan.map.dt,
    )
    check_sound(spaces, "map")
    return spaces


def merge_maps(given: ImportMap, layout: ImportMap) -> ImportMap:
    """The user's map, with what it leaves open taken from the file's own layout."""
    open_fields = ("domain", "rows", "dt", "horizon", "test")
    values = {name: getattr(layout, name) for name in open_fields if getattr(given, name) is None}
    if not given.obs:
        values["obs"] = layout.obs
    if not given.action:
        values["action"] = layout.action
    if given.cost_column is None and given.cost_limit is None:
        values["cost_column"] = layout.cost_column
        values["cost_limit"] = layout.cost_limit
    columns = {
        one.name: getattr(given.columns, one.name) or getattr(layout.columns, one.name)
        for one in fields(ColumnNames)
    }
    return replace(given, **values, columns=ColumnNames(**columns))


def _require_complete(merged: ImportMap, where: str) -> None:
    if merged.rows is None:
        raise ConfigurationError(
            f'{where}: the map (--map) does not say what a row is. Declare rows = "steps" (state, '
            'action, and what the step led to) or rows = "states" (what was measured at one '
            "moment; the next row shows what followed)."
        )
    if not merged.obs or not merged.action:
        missing = "obs" if not merged.obs else "action"
        raise ConfigurationError(
            f"{where}: the map declares no {missing}. List the columns, such as "
            f'{missing} = ["position", "velocity"].'
        )
    if merged.cost_column is None and merged.cost_limit is None:
        raise ConfigurationError(
            f"{where}: nothing says which states violate the constraint, and a missing cost is "
            'never taken for safe. Declare [cost] column = "..." (0 or 1) or limit = "abs(tilt) > '
            '0.5".'
        )


def _require_time_step(merged: ImportMap, where: str) -> None:
    """Without dt nothing can be said of gaps, and a shield's limits would be those of 1 s."""
    if merged.dt is None and (merged.columns.time is not None or merged.gaps == "split"):
        what = "a time column" if merged.columns.time is not None else 'gaps = "split"'
        raise ConfigurationError(
            f"{where}: the map has {what} but no dt, so that missing rows would not be noticed. "
            "Declare dt, the seconds between two rows."
        )


def _observations(
    merged: ImportMap,
    widths: Mapping[str, int | None],
    names: tuple[str, ...] | None,
    where: str,
) -> tuple[tuple[Reference, ...], tuple[Reference, ...]]:
    maps = merged.obs
    obs = _expand(merged, maps, widths, names, where)
    followed = [one.next_column is not None for one in maps]
    if not any(followed):
        return obs, ()
    if not all(followed):
        without = [one.name for one in maps if one.next_column is None]
        raise ConfigurationError(
            f"{where}: next_column is declared for some observations, but not for {without}. "
            "Declare it for all or for none."
        )
    after = tuple(replace(one, column=one.next_column or one.column) for one in maps)
    next_obs = _expand(merged, after, widths, names, where)
    if len(next_obs) != len(obs):
        raise DatasetError(
            f"{where}: {len(obs)} observations but {len(next_obs)} next observations. Correct "
            "next_column."
        )
    return obs, next_obs


def _expand(
    merged: ImportMap,
    maps: tuple[SignalMap, ...],
    widths: Mapping[str, int | None],
    names: tuple[str, ...] | None,
    where: str,
) -> tuple[Reference, ...]:
    """One reference per number; `names` renames them where the file knows better."""
    found: list[Reference] = []
    for one in maps:
        column, indices = _resolve(one.column, widths, where)
        for index in indices:
            whole = len(indices) == 1
            found.append(
                Reference(
                    name=one.name if whole else f"{one.name}[{index}]",
                    column=column,
                    index=index,
                    scale=one.scale,
                    offset=one.offset,
                    unit=one.unit,
                    missing=one.missing or merged.missing,
                    low=one.low,
                    high=one.high,
                )
            )
    if names is not None and len(names) == len(found):
        found = [replace(one, name=name) for one, name in zip(found, names, strict=True)]
    return tuple(found)


def _resolve(
    reference: str, widths: Mapping[str, int | None], where: str
) -> tuple[str, list[int | None]]:
    """The column that `name` or `name[index]` means, and which of its components."""
    if reference in widths:
        width = widths[reference]
        return reference, [None] if width is None else list(range(width))
    match = _INDEXED.fullmatch(reference)
    if match and match[1] in widths:
        width, index = widths[match[1]], int(match[2])
        if width is None or index >= width:
            raise DatasetError(f"{where}: {match[1]!r} has no component {index}; width {width}.")
        return match[1], [index]
    raise no_column([reference], widths, where)


def _bounded(
    action: tuple[Reference, ...], declared: Declaration, where: str
) -> tuple[Reference, ...]:
    """Actions with bounds: the map's, else the file's."""
    low, high = declared.action_low, declared.action_high
    if declared.spaces is not None:
        low, high = declared.spaces.action_low, declared.spaces.action_high
    known = low is not None and high is not None and len(low) == len(high) == len(action)
    found = []
    for index, one in enumerate(action):
        if one.low is None and known and low is not None and high is not None:
            one = replace(one, low=low[index], high=high[index])
        if one.low is None:
            raise ConfigurationError(
                f"{where}: action {one.name!r} has no bounds. Declare what the actuator takes: "
                f'[[action]] column = "{one.column}", low = ..., high = ...; limits that are '
                "guessed from data would hide wrong units."
            )
        found.append(one)
    return tuple(found)


def _check_limit(
    limit: Limit,
    obs: tuple[Reference, ...],
    further: tuple[Reference, ...],
    action: tuple[Reference, ...],
) -> None:
    known = {one.name: None for one in (*obs, *further)}
    actions = {one.name for one in action}
    for name in limit.signals:
        if name in known:
            continue
        if name in actions:
            raise ConfigurationError(
                f"the limit {limit.text!r} reads the action {name!r}, but a violation is a "
                "property of the state that is reached. If it is measured, declare it under "
                "[[signal]]."
            )
        raise ConfigurationError(
            f"the limit {limit.text!r} reads {name!r}, which is no signal. Known: "
            f"{', '.join(list(known)[:60])}. Declare further columns under [[signal]] with a "
            "plain name."
        )


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def is_steps(plan: Plan) -> bool:
    """Whether a row is a step (and not a moment)."""
    return plan.map.rows == STEPS
