"""The shield on the robot: risk, decision, faults, black box. Needs NumPy and safetensors only.

It runs on Python 3.10 (ROS 2 Humble) and later, with NumPy 1.21 and safetensors 0.4 or later.

This file is complete in itself: `safemesa shield export` copies it beside the weights as
`safemesa_shield.py`. It is one file for that reason.

    from safemesa_shield import Shield
    shield = Shield.load("my_shield", mode="monitor")
    action, risk, overridden, reason = shield.decide(obs, proposed_action)

`python safemesa_shield.py check DIR` and `... bench DIR` verify and time it where it will run;
`... seal DIR` vouches for settings that you have edited.

A learned shield is no guarantee. Put an assured layer after it (docs/shield.md).
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 - of the robot, not of safemesa
    raise ImportError("safemesa_shield needs Python 3.10 or later, not " + sys.version.split()[0])

import abc
import argparse
import collections
import contextlib
import enum
import hashlib
import io
import itertools
import json
import math
import os
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

FORMAT = 3
READABLE_FORMATS = (1, 2, 3)
"""Of format 1 every recovery is a network; before 3 nothing says what the shield was trained on,
and no hash covers the settings."""
RECOVERIES = ("network", "fixed", "external")
"""Who recovers: the exported network, one action, or what the caller of `Shield.load` gives."""
MODES = ("off", "monitor", "enforce")
OUTSIDE_POLICIES = ("record", "slow", "recover", "stop")
"""What is done where the observation is unlike the training data: nothing but a record; half of
the way to the safe action; the recovery; the safe action."""
MONITOR_POLICIES = ("record", "tighten", "recover", "stop")
"""What is done where the monitor says that the robot has changed, or that it is where the monitor's
networks know too little: nothing but a record; a lower risk limit; the recovery; the safe action.
"""
_GRAVITY = ("record", "tighten", "slow", "recover", "stop")
"""Of several policies the last one of these acts."""
MANIFEST, WEIGHTS, RUNTIME = "manifest.json", "weights.safetensors", "safemesa_shield.py"
CARD = "MODEL_CARD.md"

# Bounds on what a model file may ask for, so that a hostile one costs neither time nor memory.
_MAXIMUM_MANIFEST_BYTES = 2**20
_MAXIMUM_HEADER_BYTES = 2**17
_MAXIMUM_PARAMETERS = 2**24
_MAXIMUM_SIGNALS, _MAXIMUM_WIDTH, _MAXIMUM_LAYERS, _MAXIMUM_MEMBERS = 4096, 8192, 9, 16
_MAXIMUM_KNOWN_ANSWERS = 256
_MAXIMUM_TICKS = 10**8
_MAXIMUM_LEVELS = 2**16
MAXIMUM_DIRECTIONS = 128
_KNOWN_ANSWER_TOLERANCE = 1e-4
_SURPRISE_TOLERANCE = 1e-2
_LARGEST_INPUT = 1e30
"""Larger magnitudes overflow float32 in the networks and are no measurement."""


class ShieldError(ValueError):
    """Base of every error that this file raises; each is mended by the user."""


class ModelError(ShieldError):
    """The folder is missing, damaged, forged or of another format."""


class SettingsError(ShieldError):
    """An argument is impossible, or enforcing is not allowed for this model."""


class Reason(str, enum.Enum):  # noqa: UP042 - Python 3.10 has no StrEnum
    """Why the action is what it is. All but the first seven are faults."""

    def __str__(self) -> str:
        return self.value

    __format__ = str.__format__

    OK = "ok"
    RISK = "risk"
    """The proposal's risk is above the limit."""
    HOLDING = "holding"
    """The risk is low again, but hysteresis or the minimum dwell still holds the recovery."""
    HARD_LIMIT = "hard_limit"
    """The action was clipped to its limits or to its largest change per tick."""
    STATE_LIMIT = "state_limit"
    """A signal is outside its hard limits."""
    OUTSIDE_TRAINING = "outside_training"
    """The observation is unlike all that the shield was trained on, or the monitor's networks know
    too little there: the risk means little."""
    DYNAMICS_CHANGED = "dynamics_changed"
    """The robot moves as it did not before (`DynamicsMonitor`)."""
    BAD_OBSERVATION = "bad_observation"
    """Missing, misshapen or not numeric."""
    NAN_OBSERVATION = "nan_observation"
    """NaN, infinite or absurdly large."""
    STALE_OBSERVATION = "stale_observation"
    BAD_ACTION = "bad_action"
    """Missing, misshapen or not numeric."""
    NAN_ACTION = "nan_action"
    WILD_ACTION = "wild_action"
    """Further outside its limits than they are wide: a policy that has diverged."""
    POLICY_RAISED = "policy_raised"
    SLOW_POLICY = "slow_policy"
    """The policy took longer than its budget: its action is of a past state."""
    LATE_TICK = "late_tick"
    CLOCK = "clock"
    """Time stands still, went backwards or is no time, or the observation is from the future."""
    MODEL_FAULT = "model_fault"
    """The risk is not finite, or what the monitor expects of the next observation."""
    RECOVERY_FAULT = "recovery_fault"
    """The recovery policy raised or returned nonsense."""
    CORRUPT_MODEL = "corrupt_model"
    """The model could not be loaded; every tick gives the emergency action."""
    REENTRY = "reentry"
    """The shield was asked while it was deciding: by another thread, or by its own policy."""
    INTERNAL_ERROR = "internal_error"


_NO_FAULT = frozenset(list(Reason)[:7])
Fault = tuple[Reason, str]
"""What is wrong, and the detail for the record."""


class Decision(NamedTuple):
    """What to send to the robot, in its own units. `risk` is the proposal's; NaN if not asked.

    `overridden`: what is sent differs from what was proposed, whatever the reason.
    """

    action: np.ndarray
    risk: float
    overridden: bool
    reason: Reason


class Signals(NamedTuple):
    """Names, units and hard limits of a vector of signals, in its order."""

    names: tuple[str, ...]
    units: tuple[str | None, ...]
    low: np.ndarray
    high: np.ndarray


class Training(NamedTuple):
    """What the shield was trained on, in the units of its networks."""

    policy: str
    low: np.ndarray
    """Of the observations, then of the actions; infinite where unknown."""
    high: np.ndarray
    distance: float
    """Largest distance from the centre, along `directions` main axes of the observations."""
    directions: int


class MonitorSettings(NamedTuple):
    """What the dynamics monitor decides by."""

    networks: int
    sizes: tuple[int, ...]
    """Layers of each: observations and actions to means and log-variances of the change."""
    levels: int
    """Quantiles of what is usual."""
    outside: float
    """Share of disagreement in the variance above which a step is outside of the training."""
    threshold: float
    reference: float
    """Score that is held for no change (k of CUSUM)."""
    dynamics_changed: str
    """Policy while there is an alarm."""
    outside_training: str
    """Policy after a step that was outside of the training."""
    tighten: float
    """Factor on the risk limit of the policy `tighten`."""


class Settings(NamedTuple):
    """The part of the manifest that decides; times in seconds, None where not checked."""

    observations: Signals
    mean: np.ndarray
    std: np.ndarray
    actions: Signals
    rate: np.ndarray
    """Largest change of each action per second; infinite where not limited."""
    safe_action: np.ndarray
    fallback: str
    """`constant` (the safe action) or `hold` (the last executed one; first the safe action)."""
    dt: float
    risk_limit: float
    release_limit: float
    minimum_dwell: float
    maximum_age: float | None
    maximum_period: float | None
    policy_budget: float | None
    enforce_allowed: bool
    enforce_because: str
    critic_sizes: tuple[int, ...]
    recovery_sizes: tuple[int, ...]
    """Empty where the recovery is no network."""
    members: int
    recovery_kind: str
    recovery_action: np.ndarray
    """Of a fixed recovery, in physical units; otherwise the safe action."""
    training: Training | None = None
    monitor: MonitorSettings | None = None


# ---------------------------------------------------------------------------------------------
# Reading a folder that may be hostile
# ---------------------------------------------------------------------------------------------


def manifest_sha256(folder: str | Path) -> str:
    """What names a shield: pin it, and find its first 16 digits in the black box.

    Raises:
        ModelError: no such folder, or too large a file.
    """
    data = _read_bounded(_path(folder) / MANIFEST, _MAXIMUM_MANIFEST_BYTES)
    return hashlib.sha256(data).hexdigest()


def read_manifest(folder: str | Path, *, sha256: str | None = None) -> dict[str, Any]:
    """The manifest as JSON, within bounds. `sha256` pins its bytes.

    Raises:
        ModelError: no such folder, too large, damaged, not the pinned one, or another format.
    """
    path = _path(folder) / MANIFEST
    data = _read_bounded(path, _MAXIMUM_MANIFEST_BYTES)
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise ModelError(f"{path} is not the pinned manifest: its SHA-256 differs from {sha256}.")
    try:
        manifest = json.loads(
            data, parse_constant=_refuse_constant, object_pairs_hook=_refuse_duplicates
        )
    except RecursionError:
        raise ModelError(f"{path} is nested too deeply to be a manifest.") from None
    except ValueError as error:
        raise ModelError(f"{path} is no sound JSON ({error}). Export the shield again.") from None
    if not isinstance(manifest, dict) or manifest.get("kind") != "shield":
        raise ModelError(f"{path} is no manifest of a shield. Give an export folder.")
    if manifest.get("format") not in READABLE_FORMATS:
        raise ModelError(
            f"{path} has format {manifest.get('format')!r}, this runtime reads {FORMAT}. Use the "
            "safemesa_shield.py that lies beside it."
        )
    return manifest


def _path(given: Any) -> Path:
    try:
        return Path(given)
    except TypeError:
        raise ModelError(f"{_short(given)} is no path. Give the folder of an export.") from None


def _read_bounded(path: Path, largest: int) -> bytes:
    """The bytes of a regular file; a pipe or device is refused and never waited for."""
    try:
        if not path.parent.is_dir():
            raise ModelError(f"{path.parent} is no folder. Give the folder that the export wrote.")
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ModelError(f"{path} is no regular file. Export the shield again.")
            if status.st_size > largest:
                raise ModelError(
                    f"{path} has {status.st_size} bytes, expected at most {largest}: it does not "
                    "fit what its manifest declares. Export the shield again."
                )
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(largest)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}. Check the path.") from None
    except ValueError as error:
        if isinstance(error, ModelError):
            raise
        # A name with a NUL or half a character.
        raise ModelError(f"{_short(str(path))} is no path: {error}.") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is given twice in one object")
    return found


class _Section:
    """One object of the manifest: typed reading, and nothing unknown may be left."""

    def __init__(self, value: Any, place: str, names: Iterable[str]) -> None:
        self.place, self.names = place, set(names)
        if not isinstance(value, dict) or set(value) != self.names:
            given = sorted(map(str, value)) if isinstance(value, dict) else type(value).__name__
            raise ModelError(
                f"the manifest's {place} has {_short(given)}, expected {sorted(self.names)}."
            )
        self.value: dict[str, Any] = value

    def fail(self, name: str, expected: str) -> ModelError:
        return ModelError(
            f"the manifest's {self.place}.{name} is {_short(self.value[name])}, expected "
            f"{expected}."
        )

    def number(
        self, name: str, low: float = -math.inf, high: float = math.inf, *, above: bool = False
    ) -> float:
        """A finite number within [low, high]; within (low, high] if `above`."""
        value = self.value[name]
        low, high = max(low, -_LARGEST_INPUT), min(high, _LARGEST_INPUT)
        sound = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not sound or not low <= value <= high:
            raise self.fail(name, f"a number from {low:g} to {high:g}")
        if above and value == low:
            raise self.fail(name, f"a number above {low:g}")
        return float(value)

    def optional(self, name: str, low: float = -math.inf, *, above: bool = False) -> float | None:
        if self.value[name] is None:
            return None
        return self.number(name, low, above=above)

    def text(self, name: str) -> str:
        value = self.value[name]
        if not isinstance(value, str) or not 0 < len(value) <= 200:
            raise self.fail(name, "a text of 1 to 200 characters")
        return value

    def whole(self, name: str, low: int, high: int) -> int:
        value = self.value[name]
        if type(value) is not int or not low <= value <= high:
            raise self.fail(name, f"a whole number from {low} to {high}")
        return value

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        value = self.text(name)
        if value not in choices:
            raise self.fail(name, " or ".join(choices))
        return value

    def items(self, name: str, largest: int) -> list[Any]:
        value = self.value[name]
        if not isinstance(value, list) or not 0 < len(value) <= largest:
            raise self.fail(name, f"a list of 1 to {largest} entries")
        return value


def _short(value: Any) -> str:
    text = repr(value[:80] if isinstance(value, str) else value)
    return text if len(text) <= 80 else text[:77] + "..."


_OBSERVATION_FIELDS = ("name", "unit", "mean", "std", "low", "high")
_ACTION_FIELDS = ("name", "unit", "low", "high", "rate", "safe")
_TRAINED_FIELDS = ("trained_low", "trained_high")
_LONGEST = 1e9
"""Seconds; with the shortest dt no quotient of times overflows."""
_SHORTEST = 1e-9


def settings_of(manifest: Mapping[str, Any]) -> Settings:
    """Checks everything that the runtime decides by.

    Raises:
        ModelError: a field is missing, unknown, ill-typed or impossible; it is named.
    """
    version = manifest.get("format")
    names = ["observations", "actions", "fallback", "dt", "risk", "timing", "enforce", "networks"]
    names += ["recovery"] * (version != 1) + ["training"] * (version not in (1, 2))
    trained = _TRAINED_FIELDS if "training" in names else ()
    given = manifest.get("shield")
    # Only a shield that was made with a monitor says anything of it.
    names += ["monitor"] * (bool(trained) and isinstance(given, dict) and "monitor" in given)
    decide = _Section(given, "shield", names)
    observed = [
        _Section(item, f"observations[{i}]", _OBSERVATION_FIELDS + trained)
        for i, item in enumerate(decide.items("observations", _MAXIMUM_SIGNALS))
    ]
    observations = _signals(observed)
    mean = np.array([one.number("mean") for one in observed])
    std = np.array([one.number("std", 1e-12) for one in observed])
    for one, middle, scale in zip(observed, mean, std, strict=True):
        if abs(middle) > _LARGEST_INPUT * scale:
            raise one.fail("mean", "a number that its std can resolve")
    sections = [
        _Section(item, f"actions[{i}]", _ACTION_FIELDS + trained)
        for i, item in enumerate(decide.items("actions", _MAXIMUM_SIGNALS))
    ]
    actions = _signals(sections)
    for i, one in enumerate(sections):
        if not math.isfinite(actions.low[i]) or not math.isfinite(actions.high[i]):
            raise one.fail("low", "both limits of an action as numbers")
        if not np.float32(actions.high[i] - actions.low[i]) > 0.0:
            raise one.fail("high", "more above low than float32 can hold")
    rates = [one.optional("rate", 0.0, above=True) for one in sections]
    safe = [
        one.number("safe", float(actions.low[i]), float(actions.high[i]))
        for i, one in enumerate(sections)
    ]
    risk = _Section(decide.value["risk"], "risk", ("limit", "release_limit", "minimum_dwell"))
    limit = risk.number("limit", 0.0, 1.0)
    timing = _Section(
        decide.value["timing"], "timing", ("maximum_age", "maximum_period", "policy_budget")
    )
    enforce = _Section(decide.value["enforce"], "enforce", ("allowed", "because"))
    if not isinstance(enforce.value["allowed"], bool):
        raise enforce.fail("allowed", "true or false")
    because = enforce.value["because"]
    kind, fixed = _recovery_of(decide.value.get("recovery", {"kind": "network"}), actions)
    critic, recovery, members = _network_sizes(
        decide.value["networks"], observations, actions, kind == "network"
    )
    width = actions.high - actions.low
    settings = Settings(
        observations=observations,
        mean=mean.astype(np.float32),
        std=std.astype(np.float32),
        actions=actions,
        rate=np.array([math.inf if rate is None else rate for rate in rates]),
        safe_action=np.array(safe),
        fallback=decide.choice("fallback", ("constant", "hold")),
        dt=decide.number("dt", _SHORTEST, _LONGEST),
        risk_limit=limit,
        release_limit=risk.number("release_limit", 0.0, limit),
        minimum_dwell=risk.number("minimum_dwell", 0.0, _LONGEST),
        maximum_age=timing.optional("maximum_age", 0.0),
        maximum_period=timing.optional("maximum_period", 0.0, above=True),
        policy_budget=timing.optional("policy_budget", 0.0, above=True),
        enforce_allowed=enforce.value["allowed"],
        enforce_because=because if isinstance(because, str) else "",
        critic_sizes=critic,
        recovery_sizes=recovery,
        members=members,
        recovery_kind=kind,
        recovery_action=np.array(safe) if fixed is None else fixed,
        training=_training_of(
            decide.value.get("training"),
            observed + sections,
            np.concatenate([mean, actions.low + 0.5 * width]),
            np.concatenate([std, 0.5 * width]),
        ),
        monitor=_monitor_of(decide.value.get("monitor"), observations, actions),
    )
    return settings


def _frozen(settings: Settings) -> Settings:
    """Nobody may write into limits that all forks share."""
    training = settings.training or ()
    for value in (*settings, *settings.observations, *settings.actions, *training):
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
    return settings


def _training_of(
    value: Any, sections: list[_Section], middle: np.ndarray, scale: np.ndarray
) -> Training | None:
    """The range of all signals in units of the networks, and the distance; None if unknown."""
    if value is None:
        return None
    section = _Section(value, "training", ("policy", "distance", "directions", "rows"))
    section.whole("rows", 1, 2**53)
    low = [one.optional("trained_low") for one in sections]
    high = [one.optional("trained_high") for one in sections]
    for one, bottom, top in zip(sections, low, high, strict=True):
        if bottom is None or top is None or not bottom <= top:
            raise one.fail("trained_low", "a number that is at most trained_high")
    with np.errstate(all="ignore"):
        # What is too large for float32 limits nothing.
        low, high = (
            ((np.array(bound, np.float64) - middle) / scale).astype(np.float32)
            for bound in (low, high)
        )
    return Training(
        policy=section.choice("policy", OUTSIDE_POLICIES),
        low=low,
        high=high,
        distance=section.number("distance", 0.0),
        directions=section.whole("directions", 1, MAXIMUM_DIRECTIONS),
    )


def _monitor_of(value: Any, observations: Signals, actions: Signals) -> MonitorSettings | None:
    if value is None:
        return None
    section = _Section(value, "monitor", MonitorSettings._fields)
    obs, act = len(observations.names), len(actions.names)
    networks = section.whole("networks", 1, _MAXIMUM_MEMBERS)
    return MonitorSettings(
        networks=networks,
        sizes=_layer_sizes(section, "sizes", obs + act, 2 * obs, networks),
        levels=section.whole("levels", 1, _MAXIMUM_LEVELS),
        outside=section.number("outside", 0.0, 1.0),
        threshold=section.number("threshold", 0.0),
        reference=section.number("reference", 0.0, above=True),
        dynamics_changed=section.choice("dynamics_changed", MONITOR_POLICIES),
        outside_training=section.choice("outside_training", MONITOR_POLICIES),
        tighten=section.number("tighten", 0.0, 1.0),
    )


def _recovery_of(value: Any, actions: Signals) -> tuple[str, np.ndarray | None]:
    """Who recovers, and the action of a fixed one."""
    kind = value.get("kind") if isinstance(value, dict) else None
    more = {"fixed": ("action",), "external": ("name",)}.get(str(kind), ())
    section = _Section(value, "recovery", ("kind", *more))
    section.choice("kind", RECOVERIES)
    if kind == "external":
        section.text("name")
    if kind != "fixed":
        return str(kind), None
    given = section.items("action", _MAXIMUM_SIGNALS)
    sound = len(given) == len(actions.names) and all(
        isinstance(x, (int, float)) and not isinstance(x, bool) and low <= x <= high
        for x, low, high in zip(given, actions.low, actions.high, strict=False)
    )
    if not sound:
        raise section.fail("action", "one number within the limits of each action")
    return str(kind), np.array(given, np.float64)


def _signals(sections: list[_Section]) -> Signals:
    names = tuple(one.text("name") for one in sections)
    if len(set(names)) != len(names):
        raise ModelError("the manifest names a signal twice.")
    units = tuple(None if one.value["unit"] is None else one.text("unit") for one in sections)
    low = [one.optional("low") for one in sections]
    high = [one.optional("high") for one in sections]
    for one, bottom, top in zip(sections, low, high, strict=True):
        if bottom is not None and top is not None and not bottom < top:
            raise one.fail("low", "less than high")
    return Signals(
        names,
        units,
        np.array([-math.inf if value is None else value for value in low]),
        np.array([math.inf if value is None else value for value in high]),
    )


def _network_sizes(
    value: Any, observations: Signals, actions: Signals, has_recovery: bool
) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    section = _Section(value, "networks", ("critic", "recovery", "members"))
    members = section.whole("members", 1, _MAXIMUM_MEMBERS)
    obs, act = len(observations.names), len(actions.names)
    sizes: list[tuple[int, ...]] = []
    for name, first, last, copies in (
        ("critic", obs + act, 1, members),
        ("recovery", obs, act, 1),
    ):
        if name == "recovery" and not has_recovery:
            if section.value[name] is not None:
                raise section.fail(name, "nothing, since the recovery is no network")
            sizes.append(())
            continue
        sizes.append(_layer_sizes(section, name, first, last, copies))
    return sizes[0], sizes[1], members


def _layer_sizes(
    section: _Section, name: str, first: int, last: int, copies: int
) -> tuple[int, ...]:
    """Of networks of which there are some copies."""
    layers = section.items(name, _MAXIMUM_LAYERS)
    if any(type(n) is not int or not 1 <= n <= _MAXIMUM_WIDTH for n in layers):
        raise section.fail(name, f"layer sizes from 1 to {_MAXIMUM_WIDTH}")
    if len(layers) < 2 or (layers[0], layers[-1]) != (first, last):
        raise section.fail(name, f"layer sizes that begin with {first} and end with {last}")
    parameters = copies * sum((a + 1) * b for a, b in itertools.pairwise(layers))
    if parameters > _MAXIMUM_PARAMETERS:
        raise ModelError(f"the manifest declares {parameters} weights; too many for a shield.")
    return tuple(layers)


def network_tensors(settings: Settings) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all weights; those of the critic have a leading axis of members."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, sizes, lead in (  # of no sizes there are no layers
        ("critic", settings.critic_sizes, (settings.members,)),
        ("recovery", settings.recovery_sizes, ()),
    ):
        for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
            shapes[f"{name}.weights.{i}"] = (*lead, fan_in, fan_out)
            shapes[f"{name}.biases.{i}"] = (*lead, fan_out)
    return shapes


def expected_tensors(settings: Settings) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all that an export holds: weights, and where its training data lie."""
    shapes = network_tensors(settings)
    if settings.training is not None:
        obs_size = len(settings.observations.names)
        shapes["training.centre"] = (obs_size,)
        shapes["training.axes"] = (obs_size, settings.training.directions)
    monitor = settings.monitor
    if monitor is not None:
        for i, (fan_in, fan_out) in enumerate(itertools.pairwise(monitor.sizes)):
            shapes[f"monitor.weights.{i}"] = (monitor.networks, fan_in, fan_out)
            shapes[f"monitor.biases.{i}"] = (monitor.networks, fan_out)
        obs_size = len(settings.observations.names)
        shapes["monitor.inputs"] = (2, monitor.sizes[0])
        shapes["monitor.changes"] = shapes["monitor.log_variances"] = (2, obs_size)
        shapes["monitor.scale"] = (2, monitor.levels)
    return shapes


def read_weights(
    folder: str | Path, manifest: Mapping[str, Any], settings: Settings
) -> dict[str, np.ndarray]:
    """Weights whose hash, names, shapes, dtype and values are what the manifest declares.

    Raises:
        ModelError: anything differs.
    """
    path = _path(folder) / WEIGHTS
    files = manifest.get("files")
    pinned = files.get(WEIGHTS) if isinstance(files, dict) else None
    shapes = expected_tensors(settings)
    size = 4 * sum(math.prod(shape) for shape in shapes.values())
    data = _read_bounded(path, 8 + _MAXIMUM_HEADER_BYTES + size)
    if len(data) != 8 + int.from_bytes(data[:8], "little") + size:
        raise ModelError(
            f"{path} has {len(data)} bytes, which do not fit {size} bytes of weights: it is "
            "truncated, forged or of other networks. Export the shield again."
        )
    if hashlib.sha256(data).hexdigest() != pinned:
        raise ModelError(
            f"{path} does not match the SHA-256 in its manifest: it was changed or is damaged. "
            "Export the shield again."
        )
    try:
        tensors = safetensors.numpy.load(data)
    except Exception as error:
        # The library has its own error types, and NumPy's for dtypes that it cannot hold.
        raise ModelError(f"{path} is no sound safetensors file ({error}).") from None
    check_tensors(tensors, shapes, str(path))
    return tensors


def check_tensors(
    tensors: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], where: str
) -> None:
    """Names, shapes, dtype and finite values.

    Raises:
        ModelError: naming the tensor.
    """
    if set(tensors) != set(shapes):
        wrong = sorted(set(tensors) ^ set(shapes))[:5]
        raise ModelError(f"{where} lacks or has unexpected tensors: {_short(wrong)}.")
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tensor.shape != shape or tensor.dtype != np.float32:
            raise ModelError(
                f"{where}: {name} is {tensor.dtype}{list(tensor.shape)}, expected "
                f"float32{list(shape)}."
            )
        if not np.isfinite(tensor).all():
            raise ModelError(f"{where}: {name} holds values that are not finite.")


# What the user of a shield sets by hand; all else that decides is under a hash.
_BY_HAND = {
    "observations": ("low", "high"),
    "actions": ("rate", "safe"),
    "risk": ("limit", "release_limit", "minimum_dwell"),
    "timing": ("maximum_age", "maximum_period", "policy_budget"),
    "enforce": ("allowed", "because"),
    "training": ("policy",),
    "monitor": ("threshold", "dynamics_changed", "outside_training", "tighten"),
}
_DECIDES = ("format", "kind", "shield", "files", "known_answers")


def _set_by_hand(shield: dict[str, Any]) -> dict[str, tuple[dict[str, Any], str]]:
    """Where each setting of the user's lies in a sound section `shield`, by its path."""
    found: dict[str, tuple[dict[str, Any], str]] = {"fallback": (shield, "fallback")}
    for name, fields in _BY_HAND.items():
        part = shield.get(name)
        parts = enumerate(part) if isinstance(part, list) else ((None, part),)
        for index, one in parts:
            place = name if index is None else f"{name}[{index}]"
            if one is not None:
                found |= {f"{place}.{field}": (one, field) for field in fields}
    return found


def seal_of(manifest: Mapping[str, Any], exported: Any = None) -> dict[str, Any]:
    """What vouches for a manifest: hashes of it, and the settings that are made by hand.

    `exported` are those of the export where they have been edited since; None: it is the export.
    """
    # A copy in which 1 and 1.0 are the same number.
    told = json.loads(json.dumps({**manifest, "seal": None}), parse_int=float)
    decides = {name: told.pop(name, None) for name in _DECIDES}
    by_hand = {}
    for path, (section, field) in _set_by_hand(decides["shield"]).items():
        by_hand[path], section[field] = section[field], None
    hashes = [
        hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()
        for part in (decides, told)
    ]
    return {
        "sha256": hashes[0],
        "description_sha256": hashes[1],
        "exported": by_hand if exported is None else exported,
        "sealed": by_hand,
    }


def check_seal(manifest: Mapping[str, Any]) -> list[str]:
    """What was edited since the export or the last `seal`, in words.

    Raises:
        ModelError: what decides and nobody may edit was changed.
    """
    if manifest.get("format") in (1, 2):
        return []
    now = seal_of(manifest)
    seal = _Section(manifest.get("seal"), "seal", now).value
    if seal["sha256"] != now["sha256"]:
        raise ModelError(
            "the manifest does not match its own SHA-256: something in it was changed that decides "
            "and is not set by hand (a normaliser, a name, dt, known answers, the list of files), "
            "or it is damaged. Export the shield again."
        )
    edits = _differences(seal["sealed"], now["sealed"])
    if seal["description_sha256"] != now["description_sha256"]:
        edits.append("what it says of its data, its evaluation and its warnings")
    return edits


def _differences(old: Any, new: Mapping[str, Any]) -> list[str]:
    old = old if isinstance(old, dict) else {}
    return [
        f"{path} is {_short(value)}, was {_short(old.get(path, 'nothing'))}"
        for path, value in new.items()
        if path not in old or old[path] != value
    ]


def seal_folder(folder: str | Path) -> list[str]:
    """Vouches for settings that were edited by hand; what differs from the export, in words.

    Raises:
        ModelError: the folder is not sound, of an older format, or cannot be written.
    """
    manifest = read_manifest(folder)
    if manifest.get("format") != FORMAT:
        raise ModelError(f"{folder} is of an older format, which has no seal. Export it again.")
    Shield.load(folder)
    exported = manifest["seal"]["exported"]
    manifest["seal"] = seal_of(manifest, exported)
    path = _path(folder) / MANIFEST
    text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    fresh = path.with_name(f".{MANIFEST}.{os.getpid()}.tmp")
    try:
        fresh.write_bytes(text.encode())
        os.replace(fresh, path)
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise ModelError(f"cannot write {path}: {error}.") from None
    return _differences(exported, manifest["seal"]["sealed"])


def check_known_answers(manifest: Mapping[str, Any], shield: "Shield") -> float:
    """Largest difference from the answers that the trainer stored; 0 where it stored none.

    It finds what no hash can: another byte order, a broken BLAS, a runtime of another version.

    Raises:
        ModelError: a difference above 1e-4, or answers that cannot be read.
    """
    cases = manifest.get("known_answers")
    if cases is None:
        return 0.0
    try:
        names = ("observations", "actions", "risks", "recovery_actions")
        settings = shield.settings
        # Nobody here can repeat what a recovery of the caller's does.
        external = settings.recovery_kind == "external"
        with np.errstate(all="ignore"):
            obs, action, risk, recovery = (
                np.asarray(cases["actions" if external and name == names[3] else name], np.float32)
                for name in names
            )
        count = len(risk)
        sizes = obs.shape[1:], action.shape[1:], recovery.shape[1:]
        lengths = {len(obs), len(action), len(recovery), count}
        act_size = len(settings.actions.names)
        wanted = ((len(settings.observations.names),), *2 * ((act_size,),))
        if lengths != {count} or not 0 < count <= _MAXIMUM_KNOWN_ANSWERS or sizes != wanted:
            raise ValueError("their shapes do not fit the networks")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(f"the manifest's known answers cannot be read ({error}).") from None
    if shield.dynamics is not None:
        _check_monitor_answers(cases, shield, obs, action)
    with np.errstate(all="ignore"):
        width = settings.actions.high - settings.actions.low
        answer = recovery if external else shield.recovery_actions(obs)
        far = np.abs(answer - recovery) / width
        difference = float(max(np.abs(shield.risks(obs, action) - risk).max(), far.max()))
    if not difference <= _KNOWN_ANSWER_TOLERANCE:
        raise ModelError(
            f"the shield answers {difference:.2g} away from what its trainer computed, expected "
            f"at most {_KNOWN_ANSWER_TOLERANCE:g}. Do not use it; export it again."
        )
    return difference


def _check_monitor_answers(
    cases: Mapping[str, Any], shield: "Shield", obs: np.ndarray, action: np.ndarray
) -> None:
    """The monitor's surprises; they are squares, and known to fewer digits than a risk."""
    assert shield.dynamics is not None
    try:
        with np.errstate(all="ignore"):
            following = np.asarray(cases["next_observations"], np.float32)
            surprises = np.asarray(cases["surprises"], np.float32)
        if following.shape != obs.shape or surprises.shape != (len(obs),):
            raise ValueError("their shapes do not fit the monitor")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(f"the manifest's known answers cannot be read ({error}).") from None
    with np.errstate(all="ignore"):
        rows = zip(obs, shield._scale(action), following, strict=True)
        found = np.array([shield.dynamics.look(*row)[0] for row in rows])
        far = float((np.abs(found - surprises) / (1.0 + np.abs(surprises))).max())
    if not far <= _SURPRISE_TOLERANCE:
        raise ModelError(
            f"the shield's monitor answers {far:.2g} away from what its trainer computed, as a "
            f"share, expected at most {_SURPRISE_TOLERANCE:g}. Do not use it; export it again."
        )


# ---------------------------------------------------------------------------------------------
# Networks
# ---------------------------------------------------------------------------------------------


class _Network:
    """A ReLU network; its weights cannot be written, also those of a copy."""

    def __init__(self, weights: list[np.ndarray], biases: list[np.ndarray]) -> None:
        self.layers = []
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True), 1):
            # Copies: nobody outside holds memory of the shield.
            weight, bias = np.array(weight, np.float32, order="C"), np.array(bias, np.float32)
            for array in (weight, bias):
                array.setflags(write=False)
            self.layers.append((weight, bias, i < len(weights)))

    def __reduce__(self) -> Any:
        # Arrays lose their flags where they are copied or pickled.
        weights, biases, _ = zip(*self.layers, strict=True)
        return _Network, (list(weights), list(biases))

    def one(self, x: np.ndarray, buffers: list[np.ndarray]) -> np.ndarray:
        """One example, without allocating: in the caller's buffers, one per layer."""
        for (weight, bias, rectified), out in zip(self.layers, buffers, strict=True):
            np.dot(x, weight, out=out)
            np.add(out, bias, out=out)
            if rectified:
                np.maximum(out, 0.0, out=out)
            x = out
        return x

    def many(self, x: np.ndarray) -> np.ndarray:
        """A batch `[n, in]`."""
        for weight, bias, rectified in self.layers:
            x = x @ weight + bias
            if rectified:
                x = np.maximum(x, 0.0)
        return x


class _Model:
    """Critic and recovery networks, and their limit; shared by the shields that `fork` makes."""

    def __init__(self, tensors: Mapping[str, np.ndarray], settings: Settings) -> None:
        self.risk_limit, self.release_limit = settings.risk_limit, settings.release_limit
        layers = range(len(settings.critic_sizes) - 1)
        critics = [
            _Network(
                [tensors[f"critic.weights.{i}"][member] for i in layers],
                [tensors[f"critic.biases.{i}"][member] for i in layers],
            )
            for member in range(settings.members)
        ]
        layers = range(len(settings.recovery_sizes) - 1)
        recovery: _Network | None = None
        if settings.recovery_sizes:
            recovery = _Network(
                [tensors[f"recovery.weights.{i}"] for i in layers],
                [tensors[f"recovery.biases.{i}"] for i in layers],
            )
        self.critics, self.recovery = critics, recovery
        self.space: _Network | None = None
        if settings.training is not None:
            # `(x - centre) @ axes`, whose length is the distance from the training data.
            axes = tensors["training.axes"]
            self.space = _Network([axes], [-tensors["training.centre"] @ axes])
        self.monitor: dict[str, np.ndarray] | None = None
        if settings.monitor is not None:
            self.monitor = {
                name: np.array(tensor, np.float32, order="C")
                for name, tensor in tensors.items()
                if name.startswith("monitor.")
            }


def _sigmoid(logit: Any) -> Any:
    """`1 / (1 + exp(-logit))` without overflow, for a float or an array."""
    return 0.5 * (1.0 + np.tanh(0.5 * logit))


class DynamicsMonitor:
    """Notices that the robot has changed: it moves otherwise than its networks expect.

    Residual, score and statistic are those of `safemesa.learners.monitor`; nothing is learned here.
    There is an alarm from where the statistic exceeds the threshold until it is back at 0.

    Attributes:
        surprise: Of the last step, mean over signals of the squared residual in units of the
            networks' variance; NaN where this tick ends no step that can be judged.
        outside: Whether the networks disagreed about that step more than they usually do. It then
            speaks for no change.
        statistic: CUSUM of the normal scores of all steps so far.
        rising: Steps since it was 0 last: since the estimated change, should there be an alarm.
        alarm: Whether there is an alarm.
        alarms: So many began.
        steps: So many were judged,
        skipped: and so many were not: over a fault, a reset or a gap.
    """

    _STATE = ("surprise", "outside", "statistic", "rising", "alarm", "alarms", "steps", "skipped")

    def __init__(self, settings: MonitorSettings, tensors: Mapping[str, np.ndarray]) -> None:
        """One control loop's own; arrays are shared and never written."""
        self.settings, self.tensors = settings, tensors
        for tensor in tensors.values():
            tensor.setflags(write=False)
        self.threshold = settings.threshold
        self.surprise, self.outside, self.statistic, self.alarm = math.nan, False, 0.0, False
        self.rising, self.alarms, self.steps, self.skipped = 0, 0, 0, 0
        count, size = settings.networks, settings.sizes[-1] // 2
        layers = len(settings.sizes) - 1
        weights = [tensors[f"monitor.weights.{i}"] for i in range(layers)]
        biases = [tensors[f"monitor.biases.{i}"][:, None] for i in range(layers)]
        # Means and log-variances of all networks each in one piece: `[2, networks, 1, obs]`.
        weights[-1], biases[-1] = (
            np.ascontiguousarray(np.moveaxis(x.reshape(*x.shape[:-1], 2, size), -2, 0))
            for x in (weights[-1], biases[-1])
        )
        self._layers = [
            (weight, bias, np.zeros(bias.shape, "f4"), np.zeros(bias.shape, "f4"), i < layers - 1)
            for i, (weight, bias) in enumerate(zip(weights, biases, strict=True))
        ]
        self._input = np.zeros((1, 1, settings.sizes[0]), np.float32)
        self._obs, self._action = self._input[0, 0, :size], self._input[0, 0, size:]
        self._said = self._layers[-1][2][:, :, 0]
        self._mean, self._spread = self._said
        self._shift, self._scale = tensors["monitor.inputs"]
        least, self._most = tensors["monitor.log_variances"]
        with np.errstate(all="ignore"):
            # Of a forged file that overflows: found at every tick.
            self._least, self._range = count * np.exp(least), np.exp(self._most)
        # In the precision of what they meet: otherwise they would be converted at every tick.
        self._levels, self._scores = tensors["monitor.scale"].astype(np.float64)
        self._usual, self._unit = tensors["monitor.changes"].astype(np.float64)
        self._sums = np.zeros((2, size), np.float32)
        self._middle, self._variance = self._sums
        self._one, self._count = np.ones(1, np.float32), np.full(1, count, np.float32)
        self._apart, self._residual = np.zeros((2, size), np.float32)
        self._change, self._before = np.zeros((2, size))
        self._open = False

    def __getstate__(self) -> dict[str, Any]:
        # Buffers are views of each other, which no copy would be.
        return {"made": (self.settings, self.tensors), "past": self.past(), "at": self.threshold}

    def __setstate__(self, state: dict[str, Any]) -> None:
        DynamicsMonitor.__init__(self, *state["made"])
        self.threshold = state["at"]
        self.restore(state["past"])

    def past(self) -> tuple[Any, ...]:
        """All that what it says depends on, beside the steps to come."""
        return self._open, self._before.copy(), [getattr(self, name) for name in self._STATE]

    def restore(self, past: tuple[Any, ...]) -> None:
        """Goes on from what `past` gave."""
        self._open, self._before[:], values = past
        self.__dict__.update(zip(self._STATE, values, strict=True))

    def look(
        self, obs: np.ndarray, unit_action: np.ndarray, next_obs: np.ndarray
    ) -> tuple[float, float]:
        """Surprise of a step, and the networks' disagreement as a share of the variance.

        Observations are in physical units, the action is in [-1, 1]. Both are NaN where the
        networks say what is no number.
        """
        np.copyto(self._obs, obs, casting="same_kind")
        np.copyto(self._action, unit_action, casting="same_kind")
        x = self._input
        np.subtract(x, self._shift, out=x)
        np.divide(x, self._scale, out=x)
        for weight, bias, out, gate, hidden in self._layers:
            np.matmul(x, weight, out=out)
            np.add(out, bias, out=out)
            if hidden:  # swish
                np.negative(out, out=gate)
                np.exp(gate, out=gate)
                np.add(gate, self._one, out=gate)
                np.divide(out, gate, out=out)
            x = out
        # Of a log-variance that is bounded by two softplus, the exponential is a sigmoid.
        mean, spread = self._mean, self._spread
        np.subtract(self._most, spread, out=spread)
        np.exp(spread, out=spread)
        np.add(spread, self._one, out=spread)
        np.divide(self._range, spread, out=spread)
        np.add.reduce(self._said, axis=1, out=self._sums)
        middle, variance, apart = self._middle, self._variance, self._apart
        np.divide(middle, self._count, out=middle)
        np.subtract(mean, middle, out=mean)
        np.multiply(mean, mean, out=mean)
        np.add.reduce(mean, axis=0, out=apart)
        # Of the mixture, times the number of networks.
        np.add(variance, self._least, out=variance)
        np.add(variance, apart, out=variance)
        change, residual = self._change, self._residual
        np.subtract(next_obs, obs, out=change)
        np.subtract(change, self._usual, out=change)
        np.divide(change, self._unit, out=change)
        np.copyto(residual, change, casting="same_kind")
        np.subtract(residual, middle, out=residual)
        np.divide(residual, variance, out=middle)
        np.divide(apart, variance, out=apart)
        surprise = float(np.dot(residual, middle)) * self.settings.networks / len(residual)
        disagreement = float(np.add.reduce(apart)) / len(apart)
        if math.isnan(surprise) or math.isnan(disagreement):
            return math.nan, math.nan
        return min(surprise, _LARGEST_INPUT), disagreement

    def add(self, surprise: float, disagreement: float) -> float:
        """The statistic goes on by one step; returns its score."""
        self.steps += 1
        self.surprise, self.outside = surprise, disagreement > self.settings.outside
        score = float(np.interp(surprise, self._levels, self._scores))
        if self.outside:
            # A changed robot, and a place where it has never been, look alike here.
            score = min(score, 0.0)
        self.statistic = max(self.statistic + score - self.settings.reference, 0.0)
        self.rising = self.rising + 1 if self.statistic > 0.0 else 0
        if self.statistic > self.threshold and not self.alarm:
            self.alarm, self.alarms = True, self.alarms + 1
        elif self.statistic <= 0.0:
            self.alarm = False
        return score

    def follow(self, obs: np.ndarray, unit_action: np.ndarray, *, step: bool) -> bool:
        """Judges the step that ends at `obs`; False where it cannot be told from a broken model.

        Unless the time since the last tick was a `step`, `obs` is only where the next one begins.
        """
        self.surprise, self.outside = math.nan, False
        sound = True
        if self._open and step:
            surprise, disagreement = self.look(self._before, unit_action, obs)
            sound = not math.isnan(surprise)
            if sound:
                self.add(surprise, disagreement)
        if not (self._open and step and sound):
            self.skipped += 1
        self._open = True
        self._before[:] = obs
        return sound

    def forget(self) -> None:
        """No step ends at the next tick: there is no telling where it began."""
        self.surprise, self.outside = math.nan, False
        self._open = False

    def clear_alarm(self) -> None:
        """The statistic begins anew: somebody has looked at the robot."""
        self.statistic, self.rising, self.alarm = 0.0, 0, False

    def summary(self) -> dict[str, Any]:
        """Counts, and the statistic as it is."""
        return {
            "steps": self.steps,
            "skipped": self.skipped,
            "alarms": self.alarms,
            "statistic": self.statistic,
        }


# ---------------------------------------------------------------------------------------------
# Black box and latency
# ---------------------------------------------------------------------------------------------


class BlackBox:
    """Records of interventions and faults: the last `keep` in memory, and JSON lines on disk.

    The file is bounded: at `maximum_bytes` it is renamed to `<name>.1` (replacing that) and begun
    anew. Flush policy: with `flush="record"` each record is handed to the operating system before
    `decide` returns, so it survives a crash of the program; with `"disk"` it is also synced, so it
    survives a power cut, at the cost of milliseconds per record.

    A disk error never disturbs the control loop, and each record tries anew: it is whole on disk,
    or counted in `lost` (could not be written, or somebody removed the file), or in `overwritten`
    (two files are the bound). `total` is the sum of all. Several threads and processes may share
    a file.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        maximum_bytes: int = 16 * 2**20,
        keep: int = 1000,
        flush: str = "record",
    ) -> None:
        """Opens the file.

        Raises:
            SettingsError: an argument is impossible, the file cannot be written, or what is there
                is no black box.
        """
        self._file: io.FileIO | None = None
        self._lock = threading.Lock()
        if flush not in ("record", "disk"):
            raise SettingsError(f"flush is {_short(flush)}; expected 'record' or 'disk'.")
        for name, value, least in (("keep", keep, 0), ("maximum_bytes", maximum_bytes, 1)):
            if type(value) is not int or value < least:
                raise SettingsError(f"{name} is {_short(value)}; expected {least} or more.")
        self.records: collections.deque[dict[str, Any]] = collections.deque(maxlen=keep)
        self.total, self.lost, self.overwritten = 0, 0, 0
        self._here, self._older = 0, 0  # whole records of ours in the file and in the one before
        self._maximum, self._sync = maximum_bytes, flush == "disk"
        self._torn, self._closed = False, False
        self._path: Path | None = None
        if path is None:
            return
        try:
            # Where a link leads: renaming must not replace the link.
            self._path = Path(os.path.realpath(path))
            self._path.parent.mkdir(parents=True, exist_ok=True)
            for one in (_older(self._path), self._path):
                _check_black_box(one)
            self._open(self._path)
        except OSError as error:
            raise SettingsError(f"cannot write {_short(str(path))}: {error.strerror}.") from None
        except (TypeError, ValueError) as error:
            if isinstance(error, SettingsError):
                raise
            raise SettingsError(f"{_short(path)} is no path for a black box: {error}.") from None

    def __getstate__(self) -> dict[str, Any]:
        # A copy opens the file for itself when it has something to write.
        return {**self.__dict__, "_file": None, "_lock": None, "_here": 0, "_older": 0}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def _open(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
        descriptor = os.open(path, flags | getattr(os, "O_CLOEXEC", 0), 0o666)
        self._file = io.FileIO(descriptor, "ab")
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            self._drop_file()
            raise OSError(0, "no regular file")
        # A crash may have cut the last record off; the next one gets a line of its own.
        self._torn = self._file.seek(0, os.SEEK_END) > 0

    def _drop_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()

    def add(self, record: dict[str, Any]) -> None:
        """Stores one record; never raises."""
        with self._lock:
            self.total += 1
            self.records.append(record)
            if self._path is None:
                return
            try:
                self._write(record, self._path)
                self._here += 1
            except Exception:
                # The next one opens the file anew.
                self.lost += 1
                self._drop_file()

    def _write(self, record: dict[str, Any], path: Path) -> None:
        """Raises where the record is not whole on disk."""
        line = json.dumps(record, default=_to_json, separators=(",", ":"), allow_nan=False)
        size = self._size(path)
        data = b"\n" * self._torn + line.encode() + b"\n"
        if size > 0 and size + len(data) > self._maximum:
            self._drop_file()
            os.replace(path, _older(path))
            self._renamed()
            self._open(path)
            data = data.lstrip(b"\n")
        assert self._file is not None
        self._torn = False
        if self._file.write(data) < len(data):
            raise OSError("the disk is full")
        if self._sync:
            os.fsync(self._file.fileno())

    def _renamed(self) -> None:
        self.overwritten += self._older
        self._older, self._here = self._here, 0

    def _size(self, path: Path) -> int:
        """Bytes of the file, which is opened anew where it is another one than ours."""
        if self._closed:
            raise ValueError("the black box is closed")
        if self._file is not None:
            ours = os.fstat(self._file.fileno())
            try:
                there = os.stat(path)
            except FileNotFoundError:
                there = None
            except OSError:
                there = ours  # nobody knows: go on
            if there is not None and os.path.samestat(ours, there):
                return there.st_size
            if ours.st_nlink == 0:
                self.lost += self._here
                self._here = 0
            else:
                # Another box renamed it, as this one does, or somebody moved it away.
                self._renamed()
            self._drop_file()
        self._open(path)
        assert self._file is not None
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Closes the file; later records are lost to it."""
        self._closed = True
        self._drop_file()

    def __del__(self) -> None:
        # Nothing is buffered, so forgetting to close loses nothing.
        self._drop_file()


def _older(path: Path) -> Path:
    return path.with_name(path.name + ".1")


def _check_black_box(path: Path) -> None:
    """Refuses to write to, or to replace, what is no black box: a file of the user's, a pipe."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    begin = _read_start(path) if stat.S_ISREG(status.st_mode) else b"?"
    # What a power cut leaves may be zeros.
    if begin.strip(b"\0\n")[:1] not in (b"", b"{"):
        raise SettingsError(f"{path} is no black box. Choose another file, or move it away.")


def _read_start(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(2**16)


def _to_json(value: Any) -> Any:
    """Arrays as lists; JSON has no NaN, so what is not finite becomes a text."""
    if isinstance(value, np.ndarray):
        return [x if math.isfinite(x) else str(x) for x in value.astype(np.float64).tolist()]
    return str(value)


def read_black_box(path: str | Path) -> list[dict[str, Any]]:
    """All whole records of a file, the older one first; texts become NaN or infinity again.

    Records that a crash or a full disk cut off are left out.

    Raises:
        ShieldError: there is no such file, or a line is no record; it is named.
    """
    try:
        path = Path(os.path.realpath(path))
        files = [one for one in (_older(path), path) if one.is_file()]
        contents = [(one, one.read_bytes().split(b"\n")) for one in files]
    except (OSError, TypeError, ValueError) as error:
        raise ShieldError(f"cannot read {_short(str(path))}: {error}.") from None
    if path not in files:
        raise ShieldError(f"{path} is no file. Give the black box that a shield wrote.")
    return [
        record
        for one, lines in contents
        for number, line in enumerate(lines, 1)
        for record in _record_of(line, f"{one}, line {number}")
    ]


def _record_of(line: bytes, place: str) -> list[dict[str, Any]]:
    """The record of a line; none where it was cut off."""
    line = line.strip(b"\0\r ")
    refusal = ShieldError(f"{place} is no record of a black box. Give the file of a shield.")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        if line[:1] not in (b"", b"{"):
            raise refusal from None
        return []
    try:
        for name in ("obs", "proposed", "action"):
            if record[name] is not None:
                record[name] = np.array([_number(x) for x in record[name]])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise refusal from None
    return [record]


def _number(value: Any) -> float:
    if isinstance(value, str) and value not in ("nan", "inf", "-inf"):
        raise ValueError(value)
    return float(value)


class LatencyHistogram:
    """Durations in nanoseconds, in buckets at most 3.2 % wide; constant memory."""

    _BITS = 5

    def __init__(self) -> None:
        self.counts = [0] * ((64 - self._BITS) << self._BITS)
        self.count, self.largest = 0, 0

    def add(self, duration: int) -> None:
        """Counts one duration."""
        duration = max(duration, 0)
        shift = max(duration.bit_length() - self._BITS - 1, 0)
        self.counts[(shift << self._BITS) + (duration >> shift)] += 1
        self.count += 1
        self.largest = max(self.largest, duration)

    def quantile(self, share: float) -> float:
        """Seconds that `share` of the ticks took at most (upper edge of the bucket)."""
        wanted, seen = math.ceil(share * self.count), 0
        for bucket, count in enumerate(self.counts):
            seen += count
            if count and seen >= wanted:
                return min(self._upper(bucket), self.largest) * 1e-9
        return 0.0

    def _upper(self, bucket: int) -> int:
        shift = max((bucket >> self._BITS) - 1, 0)
        return ((bucket - (shift << self._BITS) + 1) << shift) - 1

    def summary(self) -> dict[str, int | float]:
        """Count, and quantiles in milliseconds."""
        quantiles = {"p50_ms": 0.5, "p99_ms": 0.99, "p999_ms": 0.999}
        found = {name: round(1e3 * self.quantile(q), 6) for name, q in quantiles.items()}
        return {"ticks": self.count, **found, "max_ms": self.largest * 1e-6}


# ---------------------------------------------------------------------------------------------
# The shield
# ---------------------------------------------------------------------------------------------

Policy = Callable[[Any], Any]
Seconds = Any
"""A float. Nothing else is an exception: it is a fault of the clock, at its tick."""


class RememberingRecovery(abc.ABC):
    """A recovery with a memory between ticks, such as a plan that it follows; subclass it.

    The memory is fresh wherever a takeover begins.
    """

    def begin(self) -> Any:
        """The memory before the first tick of a takeover."""
        return None

    @abc.abstractmethod
    def act(self, obs: np.ndarray, memory: Any) -> tuple[Any, Any]:
        """The action in physical units, and what to remember."""


Recovery = Callable[[np.ndarray], Any] | RememberingRecovery


class Shield:
    """Guards any policy. `decide` raises nothing: every fault has a defined action.

    Modes: `enforce` acts; `monitor` computes and records what it would do but passes the proposal;
    `off` asks no network. Hard limits hold in all three: actions are clipped, a signal outside its
    limits gives the safe action, and so does a proposal that is no action at all.

    One shield per control loop: a tick within a tick, of another thread or of the policy itself,
    gets the safe action. `fork`, which `copy.copy` calls, gives another one of the same model, for
    another loop or thread.
    """

    def __init__(
        self,
        settings: Settings,
        model: _Model | None,
        *,
        mode: str | None,
        black_box: BlackBox | None = None,
        recovery: Recovery | None = None,
        clock: Callable[[], Seconds] = time.monotonic,
        digest: str = "",
        corrupt: str = "",
        edited: tuple[str, ...] = (),
        owner: "Shield | None" = None,
    ) -> None:
        """Use `load`. `model` is None where it could not be loaded; `corrupt` says why."""
        self.settings, self.model, self.digest = _frozen(settings), model, digest
        self.edited = edited
        """Settings that differ from what the export, or `seal`, vouched for."""
        self.black_box = black_box or BlackBox()
        self.latency = LatencyHistogram()
        self._mode, self._owner, self._claimed = mode, owner, False
        self._running = threading.Lock()
        self._recovery, self._clock, self._corrupt = recovery, clock, corrupt
        obs_size, act_size = len(settings.observations.names), len(settings.actions.names)
        size = obs_size + act_size
        self._obs, self._proposed = np.zeros(obs_size), np.zeros(act_size)
        self._recovering, self._difference = np.zeros(act_size), np.zeros(act_size)
        self._magnitude, self._flags = np.zeros(size), np.zeros((2, size), bool)
        self._action_flags = np.zeros((2, act_size), bool)
        self._action, self._last = np.zeros(act_size), settings.safe_action.copy()
        self._input = np.zeros(size, np.float32)
        self._obs_input, self._act_input = self._input[:obs_size], self._input[obs_size:]
        self._given: list[np.ndarray | None] = [None, None]
        self._detail, self._read_proposal = "", False
        self._perturb: Callable[[np.ndarray], Any] | None = None
        self._buffers = _buffers(settings.critic_sizes), _buffers(settings.recovery_sizes)
        self._low, self._high = settings.actions.low, settings.actions.high
        self._width = self._high - self._low
        self._wild = self._low - self._width, self._high + self._width
        self._tolerance = 1e-6 * self._width  # of float32 actions
        self._low32, self._width32 = (np.asarray(x, np.float32) for x in (self._low, self._width))
        # Of actions to [-1, 1]; where there is no model there are no limits.
        self._slope = 2.0 / self._width
        self._offset = np.zeros(act_size) if model is None else -self._low * self._slope - 1.0
        self._change = settings.rate * settings.dt
        self._limits_rate = bool(np.isfinite(self._change).any())
        sides = np.concatenate([settings.observations.low, settings.observations.high])
        self._limits_state = bool(np.isfinite(sides).any())
        training = settings.training
        self._space = _buffers((obs_size, training.directions)) if training else []
        self.dynamics: DynamicsMonitor | None = None
        """The monitor of this control loop, if the shield was exported with one."""
        if settings.monitor is not None and model is not None and model.monitor is not None:
            self.dynamics = DynamicsMonitor(settings.monitor, model.monitor)
        self._tight, self._ticks = 1.0, 1.0
        self.unusual_policy = ""
        """What the last tick that was judged found to do about an unusual state; "" if none was."""
        self._farthest = training.distance**2 if training else math.inf
        # The small subtraction forgives a dwell that is a multiple of dt but for rounding.
        self._dwell = math.ceil(settings.minimum_dwell / settings.dt - 1e-9)
        self.tick, self.outside_training, self.overridden = 0, 0, 0
        self.reasons = dict.fromkeys(Reason, 0)
        self.reset()

    @staticmethod
    def load(
        folder: str | Path,
        *,
        mode: str = "monitor",
        force: bool = False,
        black_box: BlackBox | str | Path | None = None,
        recovery: Recovery | None = None,
        emergency_action: Iterable[float] | None = None,
        sha256: str | None = None,
        clock: Callable[[], Seconds] = time.monotonic,
    ) -> "Shield":
        """Reads an export folder.

        Args:
            folder: what `safemesa shield export` wrote.
            mode: off, monitor or enforce.
            force: enforce although the export does not allow it.
            black_box: a file for records, or a `BlackBox`.
            recovery: takes the place of the exported recovery: `obs -> action`, or one with a
                memory (`RememberingRecovery`). The slot for an assured controller.
            emergency_action: where the folder is corrupt, do not raise: give this action at every
                tick, with the reason `corrupt_model`, and record it.
            sha256: SHA-256 of the manifest that is expected; nothing else is loaded.
            clock: seconds, for `guarded_step` without `now`.

        Raises:
            ModelError: the folder is damaged or hostile, and there is no `emergency_action`.
            SettingsError: an argument is impossible (such as an `emergency_action` that is no
                action of this robot), or enforcing is not allowed.
        """
        box = black_box if isinstance(black_box, BlackBox) else BlackBox(black_box)
        emergency = None if emergency_action is None else _emergency(emergency_action)
        if not (
            recovery is None or callable(recovery) or isinstance(recovery, RememberingRecovery)
        ):
            raise SettingsError(f"recovery is {_short(recovery)}; expected `obs -> action`.")
        try:
            digest = manifest_sha256(folder)
            manifest = read_manifest(folder, sha256=sha256 or digest)
            settings = settings_of(manifest)
            edited = check_seal(manifest)
            model = _Model(read_weights(folder, manifest, settings), settings)
            shield = Shield(
                settings,
                model,
                mode="off",
                black_box=box,
                recovery=recovery,
                clock=clock,
                digest=digest[:16],
                edited=tuple(edited),
            )
            check_known_answers(manifest, shield)
        except ModelError as error:
            if emergency is None:
                raise
            return Shield(
                emergency, None, mode="enforce", black_box=box, clock=clock, corrupt=str(error)
            )
        if emergency is not None:
            # While the folder is sound: it says what an action is.
            _check_emergency(emergency.safe_action, settings.actions)
        shield.set_mode(mode, force=force)
        return shield

    _PAST = ("engaged", "_held", "_part", "_memory", "_last_now", "_last", "_has_last", "tick")
    _PAST += ("dynamics", "_tight")
    _COUNTS = ("latency", "outside_training", "overridden", "reasons")

    def __getstate__(self) -> dict[str, Any]:
        # Buffers are views of each other, which no copy would be.
        return {
            "made": (self.settings, self.model),
            "with": {
                "mode": self._mode,
                "black_box": self.black_box,
                "recovery": self._recovery,
                "clock": self._clock,
                "digest": self.digest,
                "corrupt": self._corrupt,
                "edited": self.edited,
                "owner": self._owner,
            },
            "state": {name: getattr(self, name) for name in self._PAST + self._COUNTS},
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        Shield.__init__(self, *state["made"], **state["with"])
        self.__dict__.update(state["state"])

    def __copy__(self) -> "Shield":
        return self.fork()

    @property
    def mode(self) -> str:
        """What it does: off, monitor or enforce."""
        if self._mode is None and self._owner is not None:
            return self._owner.mode
        return self._mode or "off"

    def set_mode(self, mode: str, *, force: bool = False) -> None:
        """Changes the mode between ticks, also of the forks that were given none of their own.

        Raises:
            SettingsError: no such mode, or enforcing is not allowed.
        """
        if mode not in MODES:
            raise SettingsError(f"mode is {_short(mode)}; expected off, monitor or enforce.")
        if mode == "enforce" and self.settings.recovery_kind == "external" and not self._recovery:
            raise SettingsError(
                "this shield was exported without its recovery, which is the caller's own: give "
                "it to Shield.load as recovery=, or use the shield to monitor."
            )
        if mode == "enforce" and not (self.settings.enforce_allowed or force):
            raise SettingsError(
                "this shield was exported for monitoring only: "
                f"{self.settings.enforce_because} Export it with --force, or pass force=True, "
                "to enforce all the same."
            )
        self._mode = mode

    def fork(self) -> "Shield":
        """Another shield of the same model and black box, with its own memory of the past.

        Its mode is that of this shield, now and later, until `set_mode` gives it its own.
        """
        state = self.__getstate__()
        return Shield(*state["made"], **{**state["with"], "mode": None, "owner": self})

    def claim(self) -> "Shield":
        """This shield for the first control loop that asks, a fork for every other one."""
        if self._claimed:
            return self.fork().claim()
        self._claimed = True
        return self

    def reset(self) -> None:
        """Forgets the past: call at the start of an episode, or after a deliberate pause."""
        self.engaged, self._held, self._part = False, 0.0, 1.0
        self._memory: Any = None
        self._last_now: float | None = None
        self._last[:] = self.settings.safe_action
        self._has_last = False
        if self.dynamics is not None:
            self.dynamics.forget()

    def statistics(self) -> dict[str, Any]:
        """What it did since it was made: ticks by reason, and how long they took."""
        reasons = {str(reason): count for reason, count in self.reasons.items() if count}
        return {
            "overridden": self.overridden,
            "outside_training": self.outside_training,
            "dynamics": None if self.dynamics is None else self.dynamics.summary(),
            "reasons": reasons,
            "records": self.black_box.total,
            "records_lost": self.black_box.lost,
            **self.latency.summary(),
        }

    def replace_weights(
        self, tensors: Mapping[str, np.ndarray], *, risk_limit: float | None = None
    ) -> None:
        """Swaps the networks, also those of all forks, after checking the new ones.

        A critic that goes on learning changes its level: `risk_limit` is the limit that goes with
        the new networks; the release limit keeps its ratio to it. Without one both stay.

        Raises:
            ModelError: names, shapes, dtype or values are wrong; the old ones stay.
            SettingsError: the limit is no number from 0 to 1.
        """
        if self.model is None:
            raise ModelError("a shield without a model has no weights to replace.")
        check_tensors(tensors, network_tensors(self.settings), "the new weights")
        if risk_limit is not None and not 0.0 <= risk_limit <= 1.0:
            raise SettingsError(f"risk_limit is {risk_limit}; expected a number from 0 to 1.")
        fresh = _Model(tensors, self.settings._replace(training=None, monitor=None))
        self.model.critics, self.model.recovery = fresh.critics, fresh.recovery
        if risk_limit is not None:
            given = self.settings
            share = given.release_limit / given.risk_limit if given.risk_limit > 0.0 else 1.0
            self.model.risk_limit, self.model.release_limit = risk_limit, share * risk_limit

    def replace_monitor(self, tensors: Mapping[str, np.ndarray], *, outside: float) -> None:
        """Takes a monitor that was adapted again, for this shield alone; its statistic begins anew.

        Threshold, policies and counts stay.

        Raises:
            ModelError: there is none to replace, or names, shapes, dtype or values are wrong.
        """
        old = self.dynamics
        if old is None:
            raise ModelError("a shield without a monitor has none to replace.")
        scale = tensors.get("monitor.scale", np.zeros((2, 0)))
        fresh = old.settings._replace(levels=scale.shape[-1], outside=outside)
        shapes = expected_tensors(self.settings._replace(monitor=fresh))
        shapes = {name: shape for name, shape in shapes.items() if name.startswith("monitor.")}
        check_tensors(tensors, shapes, "the new monitor")
        copies = {name: np.array(tensor, order="C") for name, tensor in tensors.items()}
        self.dynamics = DynamicsMonitor(fresh, copies)
        self.dynamics.restore(old.past())
        self.dynamics.threshold = old.threshold
        self.dynamics.clear_alarm()

    @property
    def risk_limit(self) -> float:
        """Risk above which proposals are overridden now."""
        limit = self.settings.risk_limit if self.model is None else self.model.risk_limit
        return self._tight * limit

    # -- batches, for analysis ----------------------------------------------------------------

    def risks(self, obs: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Risk of observations `[n, obs]` and actions `[n, act]` in physical units."""
        x = np.concatenate([self._normalise(obs), self._scale(action)], axis=1)
        logits = [critic.many(x)[:, 0] for critic in self._networks().critics]
        return _sigmoid(np.max(logits, axis=0).astype(np.float64))

    def recovery_actions(self, obs: np.ndarray) -> np.ndarray:
        """The exported recovery's actions `[n, act]` at observations `[n, obs]`.

        Raises:
            ModelError: it was not exported.
        """
        network = self._networks().recovery
        if network is None:
            if self.settings.recovery_kind == "external":
                raise ModelError("this shield was exported without its recovery.")
            return np.tile(self.settings.recovery_action, (len(obs), 1)).astype(np.float32)
        unit = np.tanh(network.many(self._normalise(obs)))
        return self._low32 + np.float32(0.5) * (unit + np.float32(1.0)) * self._width32

    def _networks(self) -> _Model:
        if self.model is None:
            raise ModelError("this shield has no model: " + self._corrupt)
        return self.model

    def _normalise(self, obs: np.ndarray) -> np.ndarray:
        return (np.asarray(obs, np.float32) - self.settings.mean) / self.settings.std

    def _scale(self, action: np.ndarray) -> np.ndarray:
        return (np.asarray(action, np.float64) * self._slope + self._offset).astype(np.float32)

    # -- one tick -----------------------------------------------------------------------------

    def decide(
        self,
        obs: Any,
        proposed_action: Any,
        *,
        stamp: Seconds = None,
        now: Seconds = None,
        perturb: Callable[[np.ndarray], Any] | None = None,
    ) -> Decision:
        """Chooses the action of one tick, in physical units. Raises nothing.

        Args:
            obs: the signals in the manifest's order, or a mapping from their names.
            proposed_action: what the policy wants, likewise.
            stamp: when `obs` was measured; checked against `now` (default: the clock).
            now: the time of this tick; without `stamp` and `now` no timing is checked.
            perturb: exploration noise on recovery actions, for training: `action -> action`,
                before the hard limits.
        """
        return self._tick(None, obs, proposed_action, stamp, now, perturb)

    def guarded_step(
        self, policy: Policy, obs: Any, *, now: Seconds = None, stamp: Seconds = None
    ) -> Decision:
        """As `decide`, for `policy(obs)`, which may raise, return nonsense or take too long.

        The observation is read before the policy sees it: one that changes it in place changes
        nothing here. `now` is the time of the tick (default: the clock). A tick that comes later
        than `maximum_period` after the last gives the safe action, as does a policy over its
        budget.
        """
        return self._tick(policy, obs, None, stamp, now, None)

    def _tick(
        self,
        policy: Policy | None,
        obs: Any,
        proposed: Any,
        stamp: Any,
        now: Any,
        perturb: Callable[[np.ndarray], Any] | None,
    ) -> Decision:
        if not self._running.acquire(blocking=False):
            return self._reentered()
        try:
            start = time.perf_counter_ns()
            self.tick += 1
            self._detail, self._read_proposal, self._perturb = "", False, perturb
            self._given = [None, None]
            fault: Fault | None = None
            callers: Any = {} if policy is None else np.geterr()
            # Whatever overflows becomes infinite or NaN, and is found by the checks.
            with np.errstate(all="ignore"):
                obs_fault = self._read_obs(obs)
                if policy is not None:
                    before = time.perf_counter_ns()
                    with np.errstate(**callers):
                        proposed, now, fault = self._ask(policy, obs, now)
                    start += time.perf_counter_ns() - before
                decision, error = _attempt(self._decide, obs_fault, proposed, stamp, now, fault)
                if error is not None:
                    self._detail = _describe(error)
                    decision = self._safe(Reason.INTERNAL_ERROR, math.nan)
            self.reasons[decision.reason] += 1
            self.overridden += decision.overridden
            if decision.reason is not Reason.OK:
                self._record(decision, now)
            self.latency.add(time.perf_counter_ns() - start)
            return decision
        finally:
            self._running.release()

    def _reentered(self) -> Decision:
        """A tick within a tick: everything here belongs to the other one."""
        action = self.settings.safe_action.copy()
        decision = Decision(action, math.nan, True, Reason.REENTRY)
        self.reasons[Reason.REENTRY] += 1
        record = self._record_of(decision, None, (None, None), "asked while deciding")
        _attempt(self.black_box.add, record)
        return decision

    def _ask(self, policy: Policy, obs: Any, now: Any) -> tuple[Any, Any, Fault | None]:
        """The policy's proposal, the time of the tick, and what is wrong with the policy."""
        start, fault = self._read_clock(), None
        proposed, error = _attempt(policy, obs)
        took, budget = self._read_clock() - start, self.settings.policy_budget
        if error is not None:
            fault = Reason.POLICY_RAISED, _describe(error)
        elif budget is not None and not took <= budget:
            fault = Reason.SLOW_POLICY, f"{took:.6g} s"
        # A clock that cannot be read shows as NaN, which is a fault of its own.
        return proposed, start if now is None or math.isnan(start) else now, fault

    def _read_clock(self) -> float:
        """Seconds; NaN where the clock raises or gives no time."""
        now, error = _attempt(self._clock)
        return _seconds(now) if error is None else math.nan

    def _decide(
        self, obs_fault: Fault | None, proposed: Any, stamp: Any, now: Any, fault: Fault | None
    ) -> Decision:
        if self.model is None:
            self._detail = self._corrupt
            self._given[1] = _as_vector(proposed, self.settings.actions)
            return self._safe(Reason.CORRUPT_MODEL, math.nan)
        time_fault = self._check_time(stamp, now)
        raised = fault is not None and fault[0] is Reason.POLICY_RAISED
        action_fault = None if raised else self._read_proposed(proposed)
        mode = self.mode
        seen = mode != "off" and time_fault is None and obs_fault is None
        monitor_fault = self._watch(seen)
        if obs_fault is None and self._limits_state and self._outside():
            if self.dynamics is not None:
                # Nothing was learned of what follows a violation.
                self.dynamics.forget()
            return self._safe(Reason.STATE_LIMIT, math.nan)
        # A tick that cannot be vouched for is decided before its risk is asked.
        first = time_fault or obs_fault or fault or action_fault or monitor_fault
        if first is not None:
            reason, self._detail = first
            no_action = raised or action_fault is not None
            blind = obs_fault is not None and self._limits_state
            if mode == "enforce" or no_action or blind:
                return self._safe(reason, math.nan)
            self._bound(self._proposed)
            return self._execute(math.nan, reason)
        self._bound(self._proposed)
        if mode == "off":
            return self._execute(math.nan, Reason.OK)
        return self._judge(mode == "enforce")

    def _judge(self, enforce: bool) -> Decision:
        """Asks the critic about the bounded proposal, and the recovery policy where it must."""
        self._fill_input()
        risk = self._risk()
        if not math.isfinite(risk):
            if enforce:
                return self._safe(Reason.MODEL_FAULT, risk)
            return self._execute(risk, Reason.MODEL_FAULT)
        unusual, policy = self._unusual()
        self.unusual_policy = policy
        self._hysteresis(risk, policy == "recover")
        if enforce and policy == "stop":
            return self._safe(unusual, risk)
        if not self.engaged:
            self._memory = None
            if enforce and policy == "slow":
                self._bound(0.5 * (self._action + self.settings.safe_action))
            return self._execute(risk, unusual)
        reason = Reason.HOLDING
        if risk > self.risk_limit:
            reason = Reason.RISK
        elif policy == "recover":
            reason = unusual
        if enforce and not self._recover():
            return self._safe(Reason.RECOVERY_FAULT, risk)
        return self._execute(risk, reason)

    def _hysteresis(self, risk: float, unknown: bool) -> None:
        """Engages above the limit; releases at the release limit, but not before the dwell."""
        if not self.engaged:
            self.engaged, self._held = unknown or risk > self.risk_limit, 0.0
            return
        self._held += self._part
        low = risk <= self._tight * self._networks().release_limit and not unknown
        # The small addition forgives sums of parts of ticks their rounding.
        if low and self._held + 1e-9 >= self._dwell:
            self.engaged = False

    def _fill_input(self) -> None:
        """Observation and bounded proposal in the units of the networks."""
        x = self._obs_input
        np.copyto(x, self._obs, casting="same_kind")
        np.subtract(x, self.settings.mean, out=x)
        np.divide(x, self.settings.std, out=x)
        np.multiply(self._action, self._slope, out=self._difference)
        np.add(self._difference, self._offset, out=self._difference)
        np.copyto(self._act_input, self._difference, casting="same_kind")

    def _risk(self) -> float:
        logits = [
            float(critic.one(self._input, self._buffers[0])[0])
            for critic in self._networks().critics
        ]
        # `max` alone would drop a NaN that is not the first.
        sound = all(math.isfinite(logit) for logit in logits)
        return float(_sigmoid(max(logits))) if sound else math.nan

    def _watch(self, seen: bool) -> Fault | None:
        """The monitor judges the step that ends at this tick, if it was `seen` and of length dt."""
        monitor = self.dynamics
        if monitor is None:
            return None
        if not seen:
            monitor.forget()
            return None
        np.multiply(self._last, self._slope, out=self._difference)
        np.add(self._difference, self._offset, out=self._difference)
        step = abs(self._ticks - 1.0) <= _IRREGULAR
        if monitor.follow(self._obs, self._difference, step=step):
            return None
        return Reason.MODEL_FAULT, "the monitor's residual is no number"

    def _unusual(self) -> tuple[Reason, str]:
        """What speaks against the risk, and the gravest policy about it; `ok` and "" if nothing."""
        found: list[tuple[Reason, str]] = []
        monitor, outside = self.dynamics, self._outside_policy()
        if monitor is not None and monitor.alarm:
            found.append((Reason.DYNAMICS_CHANGED, monitor.settings.dynamics_changed))
            alarm = (
                f"dynamics_changed: {monitor.statistic:.3g}, alarm above {monitor.threshold:.3g}"
            )
            self._detail = f"{alarm}; {self._detail}" if self._detail else alarm
        if monitor is not None and monitor.outside:
            found.append((Reason.OUTSIDE_TRAINING, monitor.settings.outside_training))
            self._detail = self._detail or "outside_training: the monitor's networks disagree"
        if outside:
            found.append((Reason.OUTSIDE_TRAINING, outside))
        self.outside_training += any(reason is Reason.OUTSIDE_TRAINING for reason, _ in found)
        tighten = monitor is not None and any(policy == "tighten" for _, policy in found)
        self._tight = monitor.settings.tighten if monitor is not None and tighten else 1.0
        return max(found, key=_gravity, default=(Reason.OK, ""))

    def _outside_policy(self) -> str:
        """What to do about an input that is unlike the training data; empty where it is alike."""
        training, space = self.settings.training, self._networks().space
        if training is None or space is None:
            return ""
        low, high = self._flags
        np.less(self._input, training.low, out=low)
        np.greater(self._input, training.high, out=high)
        np.logical_or(low, high, out=low)
        place = space.one(self._obs_input, self._space)
        distance = float(np.dot(place, place))
        beyond = np.count_nonzero(low)
        # NaN is not less than anything.
        if not beyond and distance <= self._farthest:
            return ""
        names = self.settings.observations.names + self.settings.actions.names
        self._detail = (
            f"outside_training: {names[int(np.argmax(low))]}"
            if beyond
            else f"outside_training: {math.sqrt(distance):.3g} > {training.distance:.3g}"
        )
        return training.policy

    def _recover(self) -> bool:
        """The recovery action into `_action`, within its limits; False where it is none."""
        given, error = _attempt(self._recovery_action)
        if error is not None:
            self._detail = _describe(error)
            return False
        fault = self._read_action(given, self._recovering)
        if fault is not None:
            self._detail = fault[1]
            return False
        self._bound(self._recovering)
        return True

    def _recovery_action(self) -> Any:
        action = self._quiet_recovery_action()
        return action if self._perturb is None else self._perturb(np.array(action, np.float64))

    def _quiet_recovery_action(self) -> Any:
        if isinstance(self._recovery, RememberingRecovery):
            if self._memory is None:
                self._memory = (self._recovery.begin(),)
            action, memory = self._recovery.act(self._obs.copy(), self._memory[0])
            self._memory = (memory,)
            return action
        if self._recovery is not None:
            return self._recovery(self._obs.copy())
        network = self._networks().recovery
        if network is None:
            return self.settings.recovery_action
        unit = network.one(self._obs_input, self._buffers[1])
        np.tanh(unit, out=unit)
        return self._low32 + np.float32(0.5) * (unit + np.float32(1.0)) * self._width32

    # -- hard limits --------------------------------------------------------------------------

    def _bound(self, action: np.ndarray) -> None:
        """Clips `action` into `_action`; inside the limits it stays as it is, bit for bit."""
        out = self._action
        np.maximum(action, self._low, out=out)
        np.minimum(out, self._high, out=out)
        if self._limits_rate and self._has_last:
            change = self._change * self._part
            np.maximum(out, self._last - change, out=out)
            np.minimum(out, self._last + change, out=out)

    def _differs(self) -> bool:
        """Whether `_action` is another one than the proposal, by more than float32's rounding."""
        if not self._read_proposal:
            return True
        difference, more = self._difference, self._action_flags[0]
        np.subtract(self._action, self._proposed, out=difference)
        np.abs(difference, out=difference)
        np.greater(difference, self._tolerance, out=more)
        return bool(np.count_nonzero(more))

    def _outside(self) -> bool:
        limits = self.settings.observations
        low, high = self._flags[:, : len(self._obs)]
        np.less(self._obs, limits.low, out=low)
        np.greater(self._obs, limits.high, out=high)
        np.logical_or(low, high, out=low)
        outside = bool(np.count_nonzero(low))
        if outside:
            self._detail = limits.names[int(np.argmax(low))]
        return outside

    # -- reading inputs -----------------------------------------------------------------------

    def _read(
        self, given: Any, signals: Signals, into: np.ndarray, bad: Reason, nan: Reason
    ) -> Fault | None:
        """Copies a vector, or a mapping from names, into a buffer; `bad` or `nan` if it is none."""
        values, error = _attempt(_array, given, signals)
        if error is not None:
            return bad, _describe(error)
        if values.shape != into.shape or values.dtype.kind not in "fiub":
            return bad, f"{values.dtype}{list(values.shape)}"
        into[:] = values
        magnitude, sound = self._magnitude[: len(into)], self._flags[0, : len(into)]
        np.abs(into, out=magnitude)
        # NaN is not less than anything.
        np.less(magnitude, _LARGEST_INPUT, out=sound)
        if np.count_nonzero(sound) == len(into):
            return None
        return nan, signals.names[int(np.argmin(sound))]

    def _read_obs(self, given: Any) -> Fault | None:
        signals = self.settings.observations
        bad, nan = Reason.BAD_OBSERVATION, Reason.NAN_OBSERVATION
        fault = self._read(given, signals, self._obs, bad, nan)
        # For the record, as it is now: the policy may change it.
        unread = fault is not None and fault[0] is bad
        self._given[0] = _as_vector(given, signals) if unread else self._obs
        return fault

    def _read_proposed(self, given: Any) -> Fault | None:
        fault = self._read_action(given, self._proposed)
        self._read_proposal = fault is None or fault[0] is Reason.WILD_ACTION
        bad = fault is not None and fault[0] is Reason.BAD_ACTION
        self._given[1] = _as_vector(given, self.settings.actions) if bad else self._proposed
        return fault

    def _read_action(self, given: Any, into: np.ndarray) -> Fault | None:
        signals = self.settings.actions
        fault = self._read(given, signals, into, Reason.BAD_ACTION, Reason.NAN_ACTION)
        if fault is not None:
            return fault
        below, above = self._action_flags
        np.less(into, self._wild[0], out=below)
        np.greater(into, self._wild[1], out=above)
        np.logical_or(below, above, out=below)
        if not np.count_nonzero(below):
            return None
        return Reason.WILD_ACTION, signals.names[int(np.argmax(below))]

    def _check_time(self, stamp: Any, given: Any) -> Fault | None:
        self._part, self._ticks = 1.0, 1.0
        if given is None and stamp is None:
            return None
        now = self._read_clock() if given is None else _seconds(given)
        last = self._last_now
        if not math.isfinite(now):
            return Reason.CLOCK, f"now is {now if given is None else type(given).__name__}"
        limits = self.settings
        # A clock that is set back must not stop the robot for more than this tick.
        self._last_now = now
        if last is not None and not now - last > _STANDS_STILL * limits.dt:
            return Reason.CLOCK, f"now {now!r}, before it {last!r}"
        if last is not None:
            # Of a tick: rates and the dwell are per second, also of a loop that is faster than dt.
            self._ticks = (now - last) / limits.dt
            self._part = min(self._ticks, 1.0)
        if stamp is not None:
            age = now - _seconds(stamp)
            if not math.isfinite(age) or age < -limits.dt:
                return Reason.CLOCK, f"measured at {_seconds(stamp)!r}, now {now!r}"
            if limits.maximum_age is not None and age > limits.maximum_age:
                return Reason.STALE_OBSERVATION, f"{age:.6g} s old"
        longest = limits.maximum_period
        if last is not None and longest is not None and now - last > longest:
            return Reason.LATE_TICK, f"{now - last:.6g} s after the last tick"
        return None

    # -- outcomes -----------------------------------------------------------------------------

    def _safe(self, reason: Reason, risk: float) -> Decision:
        """The fallback: no network, no limit on its rate, at once.

        Outside of hard limits nothing is held: the last action is what led there.
        """
        if self.engaged:
            self._held += self._part
        holds = self.settings.fallback == "hold" and reason is not Reason.STATE_LIMIT
        if holds and self._has_last:
            self._action[:] = self._last
        else:
            self._action[:] = self.settings.safe_action
        return self._execute(risk, reason)

    def _execute(self, risk: float, reason: Reason) -> Decision:
        self._last[:] = self._action
        self._has_last = True
        overridden = self._differs()
        if overridden and reason is Reason.OK:
            reason = Reason.HARD_LIMIT
        return Decision(self._action.copy(), risk, overridden, reason)

    def _record(self, decision: Decision, now: Any) -> None:
        obs, proposed = (None if one is None else one.copy() for one in self._given)
        record = self._record_of(decision, now, (obs, proposed), self._detail)
        # Of a box of the caller's own nothing is known.
        _attempt(self.black_box.add, record)

    def _record_of(
        self,
        decision: Decision,
        now: Any,
        given: tuple[np.ndarray | None, np.ndarray | None],
        detail: str,
    ) -> dict[str, Any]:
        seconds = math.nan if now is None else _seconds(now)
        monitor = self.dynamics
        judged = monitor is not None and not math.isnan(monitor.surprise)
        return {
            "tick": self.tick,
            "wall_time": time.time(),
            "now": seconds if math.isfinite(seconds) else None,
            "model": self.digest,
            "mode": self.mode,
            "reason": str(decision.reason),
            "fault": decision.reason not in _NO_FAULT,
            "overridden": decision.overridden,
            "risk": decision.risk if math.isfinite(decision.risk) else None,
            "surprise": monitor.surprise if monitor is not None and judged else None,
            "statistic": None if monitor is None else monitor.statistic,
            "obs": given[0],
            "proposed": given[1],
            "action": decision.action.copy(),
            "detail": detail,
        }


_STANDS_STILL = 1e-6
"""Of a tick: a clock that moves by less stands still."""
_IRREGULAR = 0.25
"""Of a tick: what took so much longer or shorter is no step as those that the monitor learned."""


def _gravity(found: tuple[Reason, str]) -> int:
    return _GRAVITY.index(found[1])


def _buffers(sizes: tuple[int, ...]) -> list[np.ndarray]:
    """Where the layers of a network put their results."""
    return [np.zeros(size, np.float32) for size in sizes[1:]]


def _attempt(function: Callable[..., Any], *given: Any) -> tuple[Any, BaseException | None]:
    """The result of a call, or what it raised, but for what is meant for the whole program.

    Code in other languages raises what is no `Exception`, such as a panic in Rust.
    """
    try:
        return function(*given), None
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        return None, error


def _array(given: Any, signals: Signals) -> np.ndarray:
    """A vector, or a mapping from names, as an array; masked numbers are NaN."""
    if type(given) is np.ndarray:
        return given
    if isinstance(given, Mapping):
        given = [given[name] for name in signals.names]
    elif isinstance(given, np.ma.MaskedArray):
        given = np.ma.filled(given.astype(np.float64), math.nan)
    return np.asarray(given)


def _seconds(value: Any) -> float:
    """A time as a float; NaN where it is none."""
    if type(value) is float:
        return value
    number, error = _attempt(_as_float, value)
    return math.nan if error is not None else number


def _as_float(value: Any) -> float:
    sound = not (isinstance(value, (bool, str, bytes)) or getattr(value, "ndim", 0))
    return float(value) if sound else math.nan


def _as_vector(given: Any, signals: Signals) -> np.ndarray | None:
    """What was given, bit for bit, if it was a vector of this many numbers at all."""

    def convert() -> np.ndarray:
        named = isinstance(given, Mapping)
        values = [given.get(name, math.nan) for name in signals.names] if named else given
        return np.array(values, np.float64)

    values, error = _attempt(convert)
    return values if error is None and values.shape == signals.low.shape else None


def _describe(error: BaseException) -> str:
    """What was raised, in a short text; some errors have none."""
    text, broken = _attempt(lambda: _short(str(error)))
    return f"{type(error).__name__}: {text if broken is None else '(it has no text)'}"


def _check_emergency(action: np.ndarray, actions: Signals) -> None:
    """Refuses what is no action of this robot."""
    fits = action.shape == actions.low.shape and bool(
        ((action >= actions.low) & (action <= actions.high)).all()
    )
    if not fits:
        raise SettingsError(
            f"emergency_action is {action.tolist()}; expected {len(actions.names)} numbers from "
            f"{actions.low.tolist()} to {actions.high.tolist()}."
        )


def _emergency(action: Iterable[float]) -> Settings:
    """Settings of a shield without a model: it knows one action and nothing else."""
    try:
        values = np.array(list(action), np.float64)
    except Exception:
        values = np.zeros(0)
    if values.ndim != 1 or not 0 < len(values) <= _MAXIMUM_SIGNALS or not np.isfinite(values).all():
        raise SettingsError("emergency_action must be finite numbers, one per action.")
    unlimited = np.full(len(values), math.inf)
    names = tuple(f"action {i}" for i in range(len(values)))
    return Settings(
        observations=Signals((), (), np.zeros(0), np.zeros(0)),
        mean=np.zeros(0, np.float32),
        std=np.ones(0, np.float32),
        actions=Signals(names, (None,) * len(values), -unlimited, unlimited),
        rate=unlimited,
        safe_action=values,
        fallback="constant",
        dt=1.0,
        risk_limit=0.0,
        release_limit=0.0,
        minimum_dwell=0.0,
        maximum_age=None,
        maximum_period=None,
        policy_budget=None,
        enforce_allowed=True,
        enforce_because="",
        critic_sizes=(),
        recovery_sizes=(),
        members=1,
        recovery_kind="fixed",
        recovery_action=values,
    )


# ---------------------------------------------------------------------------------------------
# Check and bench, where it will run
# ---------------------------------------------------------------------------------------------


VERIFIED, NOT_VERIFIED = "verified", "NOT VERIFIED"


def check_folder(folder: str | Path) -> dict[str, Any]:
    """Verifies an export folder; what it is, in a few words.

    `checks` says of each check what it verified, or that it did not and why.

    Raises:
        ModelError: a file is missing or changed, or the shield does not answer as its trainer did.
    """
    manifest = read_manifest(folder)
    shield = Shield.load(folder)
    settings = shield.settings
    difference = check_known_answers(manifest, shield)
    return {
        "name": _short(manifest.get("name")),
        "observations": list(settings.observations.names),
        "actions": list(settings.actions.names),
        "dt_s": settings.dt,
        "risk_limit": settings.risk_limit,
        "enforce_allowed": settings.enforce_allowed,
        "hard_limits": _hard_limits(settings),
        "outside_training": _training_in_words(manifest, settings),
        "dynamics_monitor": _monitor_in_words(settings),
        "time_to_act": _time_to_act(manifest),
        "known_answers_differ_by": difference,
        "manifest_sha256": manifest_sha256(folder),
        "warnings": manifest.get("warnings", []),
        "checks": {
            "weights": f"{VERIFIED}: SHA-256, names, shapes and values",
            "settings": _seal_in_words(manifest, shield.edited),
            "known answers": _answers_in_words(manifest, settings),
            "files": _files_in_words(_path(folder), manifest),
            "runtime": _runtime_in_words(_path(folder)),
        },
    }


def not_verified(found: Mapping[str, Any]) -> str:
    """The names of the checks that verified nothing; empty where all did."""
    checks = found["checks"].items()
    return ", ".join(name for name, text in checks if not text.startswith(VERIFIED))


def _seal_in_words(manifest: Mapping[str, Any], edited: tuple[str, ...]) -> str:
    if manifest.get("format") in (1, 2):
        return f"{NOT_VERIFIED}: a manifest of this format has no hash of them. Export it again"
    if edited:
        return f"{NOT_VERIFIED}: edited ({'; '.join(edited)}). If this is meant, `seal` the folder"
    seal = manifest["seal"]
    since = _differences(seal["exported"], seal["sealed"])
    return f"{VERIFIED}: " + (f"sealed with edits ({'; '.join(since)})" if since else "as exported")


def _answers_in_words(manifest: Mapping[str, Any], settings: Settings) -> str:
    cases = manifest.get("known_answers")
    if cases is None:
        return f"{NOT_VERIFIED}: the manifest has none"
    monitor = " and surprises of the monitor" if settings.monitor is not None else ""
    if settings.recovery_kind == "external":
        return f"{VERIFIED}: {len(cases['risks'])} risks{monitor}; the recovery is the caller's own"
    return f"{VERIFIED}: {len(cases['risks'])} risks and recovery actions{monitor}"


def _files_in_words(folder: Path, manifest: Mapping[str, Any]) -> str:
    """Raises ModelError where a listed file is missing or changed."""
    listed = manifest.get("files")
    listed = listed if isinstance(listed, dict) else {}
    for name, digest in listed.items():
        if name != os.path.basename(name) or name in ("", ".", ".."):
            raise ModelError(f"the manifest lists a file outside its folder: {_short(name)}.")
        data = _read_bounded(folder / name, 8 * _MAXIMUM_PARAMETERS)
        if hashlib.sha256(data).hexdigest() != digest:
            raise ModelError(f"{folder / name} was changed after the export.")
    missing = sorted({WEIGHTS, RUNTIME, CARD} - set(listed))
    # Python leaves its cache where the runtime is imported from.
    known = {*listed, MANIFEST, "__pycache__"}
    more = sorted(set(os.listdir(folder)) - known)
    cached = folder / "__pycache__"
    if cached.is_dir():
        own = f"{Path(RUNTIME).stem}."
        more += sorted(name for name in os.listdir(cached) if not name.startswith(own))
    if missing or more:
        words = [f"not in the manifest's list: {_short(missing)}"] * bool(missing)
        words += [f"not of the export: {_short(more)}"] * bool(more)
        return f"{NOT_VERIFIED}: {'; '.join(words)}"
    return f"{VERIFIED}: SHA-256 of {', '.join(listed)}"


def _runtime_in_words(folder: Path) -> str:
    """Whether the runtime of the folder is the code that runs here."""
    there, here = folder / RUNTIME, Path(__file__)
    if not there.is_file():
        return f"{NOT_VERIFIED}: there is none in the folder"
    if there.samefile(here):
        return f"{VERIFIED}: it is the code that runs this check, for which only you can vouch"
    if there.read_bytes() != here.read_bytes():
        return f"{NOT_VERIFIED}: it is another code than the one that runs this check"
    return f"{VERIFIED}: it is the code that runs this check"


def _hard_limits(settings: Settings) -> str:
    """Which signals have none."""
    limits = settings.observations
    names = [
        name
        for name, low, high in zip(limits.names, limits.low, limits.high, strict=True)
        if not (math.isfinite(low) and math.isfinite(high))
    ]
    return f"not set on both sides for {', '.join(names)}" if names else "set for all signals"


def _training_in_words(manifest: Mapping[str, Any], settings: Settings) -> str:
    """What happens where a signal leaves the training data, above all without hard limits."""
    if settings.training is None:
        return "unknown: the export does not say what it was trained on, so nothing notices"
    policy, shield = settings.training.policy, manifest["shield"]
    ranges = ", ".join(
        f"{one['name']} {one['trained_low']:.4g} to {one['trained_high']:.4g}"
        for one in shield["observations"]
    )
    text = f"policy {policy}; trained on {ranges}"
    if policy == "record" and _hard_limits(settings) != "set for all signals":
        text += "; outside of that the risk means little, and nothing acts: set hard limits"
    return text


def _monitor_in_words(settings: Settings) -> str:
    monitor = settings.monitor
    if monitor is None:
        return "none: nothing notices that the robot changes"
    return (
        f"alarm above {monitor.threshold:.4g}; policy {monitor.dynamics_changed} where the robot "
        f"has changed, {monitor.outside_training} where the monitor's networks disagree"
    )


def _time_to_act(manifest: Mapping[str, Any]) -> str:
    """How early the shield warns, as its exporter measured it; nothing here decides by it."""
    told = manifest.get("time_to_act")
    summary = told.get("summary") if isinstance(told, dict) else None
    sound = isinstance(summary, str) and len(summary) <= 400 and summary.isprintable()
    return str(summary) if sound else "not measured"


def bench(
    folder: str | Path, *, ticks: int = 1_000_000, mode: str = "enforce", seed: int = 0
) -> dict[str, Any]:
    """Times `decide` on inputs around the training data, with the black box on disk.

    Beside the wall time stand the processor time of the same calls, and the wall time of a loop
    without a shield: what only the wall shows, or the empty loop too, is the machine's doing.
    """
    if not 1 <= ticks <= _MAXIMUM_TICKS:
        raise SettingsError(f"ticks is {ticks}; expected 1 to {_MAXIMUM_TICKS}.")
    with tempfile.TemporaryDirectory() as temporary:
        box = BlackBox(Path(temporary) / "black_box.jsonl")
        shield = Shield.load(folder, mode=mode, force=True, black_box=box)
        if shield.dynamics is not None:
            # Rows that do not follow each other would be an alarm at every tick.
            shield.dynamics.threshold = math.inf
        settings, rng = shield.settings, np.random.default_rng(seed)
        rows = 4096
        obs = settings.mean + settings.std * rng.normal(size=(rows, len(settings.mean)))
        action = rng.uniform(
            settings.actions.low, settings.actions.high, (rows, len(settings.safe_action))
        )
        memory, overridden = _peak_memory(), 0
        control, spent, busy = np.zeros((3, ticks), np.int64)
        clock, processor = time.perf_counter_ns, time.thread_time_ns
        for i in range(ticks):
            start = clock()
            control[i] = clock() - start
        for i in range(ticks):
            row = i % rows
            processor_start, start = processor(), clock()
            decision = shield.decide(obs[row], action[row])
            spent[i] = clock() - start
            busy[i] = processor() - processor_start
            overridden += decision.overridden
        grown = _peak_memory() - memory
        box.close()
    hidden = (list(settings.critic_sizes[1:-1]), list(settings.recovery_sizes[1:-1]))
    return {
        "ticks": ticks,
        "mode": mode,
        "hidden_layers": hidden,
        "overridden_share": overridden / ticks,
        **_quantiles(spent, "decide"),
        **_quantiles(busy, "decide_processor"),
        **_quantiles(control, "empty_loop"),
        # The arrays of durations were made after the first look at the memory.
        "memory_growth_mib": max(grown - control.nbytes * 3 / 2**20, 0.0),
        "records_lost": box.lost,
    }


def _quantiles(spent: np.ndarray, name: str) -> dict[str, int | float]:
    p50, p99, p999 = np.quantile(spent, [0.5, 0.99, 0.999]) * 1e-6
    return {
        f"{name}_p50_ms": float(p50),
        f"{name}_p99_ms": float(p99),
        f"{name}_p99.9_ms": float(p999),
        f"{name}_max_ms": float(spent.max() * 1e-6),
        f"{name}_over_5_ms": int((spent > 5_000_000).sum()),
    }


def _peak_memory() -> float:
    """Largest resident memory so far in MiB; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def main(arguments: list[str]) -> int:
    """`python safemesa_shield.py check|bench [DIR]`; DIR is by default the file's own folder."""
    parser = argparse.ArgumentParser(prog="python safemesa_shield.py")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, text in (
        ("check", "verify hashes and settings, and repeat the answers of the trainer"),
        ("bench", "time `decide` (set OPENBLAS_NUM_THREADS=1)"),
        ("seal", "vouch for settings that you have edited in the manifest"),
    ):
        one = verbs.add_parser(verb, help=text, description=text)
        one.add_argument("folder", nargs="?", default=str(Path(__file__).parent))
        if verb == "bench":
            one.add_argument("--ticks", type=int, default=1_000_000)
    flags = parser.parse_args(arguments)
    try:
        if flags.verb == "check":
            return _print_check(check_folder(flags.folder))
        if flags.verb == "seal":
            print(*seal_folder(flags.folder) or ["Nothing differs from the export."], sep="\n")
        else:
            for name, value in bench(flags.folder, ticks=flags.ticks).items():
                print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
    except ShieldError as error:
        print(f"safemesa_shield: {error}", file=sys.stderr)
        return 2
    return 0


def _print_check(found: Mapping[str, Any]) -> int:
    for line in check_lines(found):
        print(line)
    lacking = not_verified(found)
    if lacking:
        print(f"safemesa_shield: not everything is verified: {lacking}.", file=sys.stderr)
        return 2
    print("The shield is sound.")
    return 0


def check_lines(found: Mapping[str, Any]) -> list[str]:
    """What `check_folder` found, for a console."""
    facts = [f"{name}: {_fact(value)}" for name, value in found.items() if name != "checks"]
    return facts + [f"check of {name}: {text}" for name, text in found["checks"].items()]


def _fact(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    # A forged manifest must not steer the terminal.
    return text if text.isprintable() else repr(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
