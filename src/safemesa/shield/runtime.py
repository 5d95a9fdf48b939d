"""The shield on the robot: risk, decision, faults, black box. Needs NumPy and safetensors only.

This file is complete in itself: `safemesa shield export` copies it beside the weights as
`safemesa_shield.py`. It is one file for that reason.

    from safemesa_shield import Shield
    shield = Shield.load("my_shield", mode="monitor")
    action, risk, overridden, reason = shield.decide(obs, proposed_action)

`python safemesa_shield.py check DIR` and `... bench DIR` verify and time it where it will run.

A learned shield is no guarantee. Put an assured layer after it (docs/shield.md).
"""

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
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

FORMAT = 2
READABLE_FORMATS = (1, 2)
"""Of format 1 every recovery is a network."""
RECOVERIES = ("network", "fixed", "external")
"""Who recovers: the exported network, one action, or what the caller of `Shield.load` gives."""
MODES = ("off", "monitor", "enforce")
MANIFEST, WEIGHTS = "manifest.json", "weights.safetensors"

# Bounds on what a model file may ask for, so that a hostile one costs neither time nor memory.
_MAXIMUM_MANIFEST_BYTES = 2**20
_MAXIMUM_HEADER_BYTES = 2**17
_MAXIMUM_PARAMETERS = 2**24
_MAXIMUM_SIGNALS, _MAXIMUM_WIDTH, _MAXIMUM_LAYERS, _MAXIMUM_MEMBERS = 4096, 8192, 9, 16
_MAXIMUM_KNOWN_ANSWERS = 256
_KNOWN_ANSWER_TOLERANCE = 1e-4
_LARGEST_INPUT = 1e30
"""Larger magnitudes overflow float32 in the networks and are no measurement."""


class ShieldError(ValueError):
    """Base of every error that this file raises; each is mended by the user."""


class ModelError(ShieldError):
    """The folder is missing, damaged, forged or of another format."""


class SettingsError(ShieldError):
    """An argument is impossible, or enforcing is not allowed for this model."""


class Reason(enum.StrEnum):
    """Why the action is what it is. All but the first five are faults."""

    OK = "ok"
    RISK = "risk"
    """The proposal's risk is above the limit."""
    HOLDING = "holding"
    """The risk is low again, but hysteresis or the minimum dwell still holds the recovery."""
    HARD_LIMIT = "hard_limit"
    """The action was clipped to its limits or to its largest change per tick."""
    STATE_LIMIT = "state_limit"
    """A signal is outside its hard limits."""
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
    """Time went backwards, is not finite, or the observation is from the future."""
    MODEL_FAULT = "model_fault"
    """The risk is not finite."""
    RECOVERY_FAULT = "recovery_fault"
    """The recovery policy raised or returned nonsense."""
    CORRUPT_MODEL = "corrupt_model"
    """The model could not be loaded; every tick gives the emergency action."""
    INTERNAL_ERROR = "internal_error"


_NO_FAULT = frozenset(list(Reason)[:5])


class Decision(NamedTuple):
    """What to send to the robot, in its own units. `risk` is the proposal's; NaN if not asked."""

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


# ---------------------------------------------------------------------------------------------
# Reading a folder that may be hostile
# ---------------------------------------------------------------------------------------------


def manifest_sha256(folder: str | Path) -> str:
    """What names a shield: pin it, and find its first 16 digits in the black box.

    Raises:
        ModelError: no such folder, or too large a file.
    """
    return hashlib.sha256(
        _read_bounded(Path(folder) / MANIFEST, _MAXIMUM_MANIFEST_BYTES)
    ).hexdigest()


def read_manifest(folder: str | Path, *, sha256: str | None = None) -> dict[str, Any]:
    """The manifest as JSON, within bounds. `sha256` pins its bytes.

    Raises:
        ModelError: no such folder, too large, damaged, not the pinned one, or another format.
    """
    path = Path(folder) / MANIFEST
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


def _read_bounded(path: Path, largest: int) -> bytes:
    """The bytes of a regular file; a pipe or device is refused and never waited for."""
    if not path.parent.is_dir():
        raise ModelError(f"{path.parent} is no folder. Give the folder that the export wrote.")
    try:
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
        sound = isinstance(value, int | float) and not isinstance(value, bool)
        if not sound or abs(value) > _LARGEST_INPUT or not low <= value <= high:
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
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


_OBSERVATION_FIELDS = ("name", "unit", "mean", "std", "low", "high")
_ACTION_FIELDS = ("name", "unit", "low", "high", "rate", "safe")


def settings_of(manifest: Mapping[str, Any]) -> Settings:
    """Checks everything that the runtime decides by.

    Raises:
        ModelError: a field is missing, unknown, ill-typed or impossible; it is named.
    """
    names = ("observations", "actions", "fallback", "dt", "risk", "timing", "enforce", "networks")
    told = manifest.get("format") != 1
    decide = _Section(manifest.get("shield"), "shield", (*names, "recovery") if told else names)
    sections = [
        _Section(item, f"observations[{i}]", _OBSERVATION_FIELDS)
        for i, item in enumerate(decide.items("observations", _MAXIMUM_SIGNALS))
    ]
    observations = _signals(sections)
    mean = np.array([one.number("mean") for one in sections])
    std = np.array([one.number("std", 1e-12) for one in sections])
    sections = [
        _Section(item, f"actions[{i}]", _ACTION_FIELDS)
        for i, item in enumerate(decide.items("actions", _MAXIMUM_SIGNALS))
    ]
    actions = _signals(sections)
    for i, one in enumerate(sections):
        if not math.isfinite(actions.low[i]) or not math.isfinite(actions.high[i]):
            raise one.fail("low", "both limits of an action as numbers")
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
    return Settings(
        observations=observations,
        mean=mean.astype(np.float32),
        std=std.astype(np.float32),
        actions=actions,
        rate=np.array([math.inf if rate is None else rate for rate in rates]),
        safe_action=np.array(safe),
        fallback=decide.choice("fallback", ("constant", "hold")),
        dt=decide.number("dt", 0.0, above=True),
        risk_limit=limit,
        release_limit=risk.number("release_limit", 0.0, limit),
        minimum_dwell=risk.number("minimum_dwell", 0.0),
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
        isinstance(x, int | float) and not isinstance(x, bool) and low <= x <= high
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
    parameters = 0
    for name, first, last, copies in (
        ("critic", obs + act, 1, members),
        ("recovery", obs, act, 1),
    ):
        if name == "recovery" and not has_recovery:
            if section.value[name] is not None:
                raise section.fail(name, "nothing, since the recovery is no network")
            sizes.append(())
            continue
        layers = section.items(name, _MAXIMUM_LAYERS)
        if any(type(n) is not int or not 1 <= n <= _MAXIMUM_WIDTH for n in layers):
            raise section.fail(name, f"layer sizes from 1 to {_MAXIMUM_WIDTH}")
        if len(layers) < 2 or (layers[0], layers[-1]) != (first, last):
            raise section.fail(name, f"layer sizes that begin with {first} and end with {last}")
        sizes.append(tuple(layers))
        pairs = itertools.pairwise(layers)
        parameters += copies * sum((a + 1) * b for a, b in pairs)
    if parameters > _MAXIMUM_PARAMETERS:
        raise ModelError(f"the manifest declares {parameters} weights; too many for a shield.")
    return sizes[0], sizes[1], members


def expected_tensors(settings: Settings) -> dict[str, tuple[int, ...]]:
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


def read_weights(
    folder: str | Path, manifest: Mapping[str, Any], settings: Settings
) -> dict[str, np.ndarray]:
    """Weights whose hash, names, shapes, dtype and values are what the manifest declares.

    Raises:
        ModelError: anything differs.
    """
    path = Path(folder) / WEIGHTS
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


# ---------------------------------------------------------------------------------------------
# Networks
# ---------------------------------------------------------------------------------------------


class _Network:
    """A ReLU network with buffers for one example; weights cannot be written."""

    def __init__(self, weights: list[np.ndarray], biases: list[np.ndarray]) -> None:
        self.layers = []
        for weight, bias in zip(weights, biases, strict=True):
            # Copies: nobody outside holds memory of the shield.
            layer = np.array(weight, np.float32, order="C"), np.array(bias, np.float32)
            for array in layer:
                array.setflags(write=False)
            self.layers.append((*layer, np.zeros(bias.shape, np.float32)))

    def one(self, x: np.ndarray) -> np.ndarray:
        """One example, without allocating; the result is overwritten by the next call."""
        last = len(self.layers) - 1
        for i, (weight, bias, out) in enumerate(self.layers):
            np.dot(x, weight, out=out)
            np.add(out, bias, out=out)
            if i < last:
                np.maximum(out, 0.0, out=out)
            x = out
        return x

    def many(self, x: np.ndarray) -> np.ndarray:
        """A batch `[n, in]`."""
        last = len(self.layers) - 1
        for i, (weight, bias, _) in enumerate(self.layers):
            x = x @ weight + bias
            if i < last:
                x = np.maximum(x, 0.0)
        return x


class _Model:
    """Critic and recovery networks, and their limit; shared by the shields that `fork` makes."""

    def __init__(self, tensors: Mapping[str, np.ndarray], settings: Settings) -> None:
        self.risk_limit, self.release_limit = settings.risk_limit, settings.release_limit
        layers = range(len(settings.critic_sizes) - 1)
        self.critics = [
            _Network(
                [tensors[f"critic.weights.{i}"][member] for i in layers],
                [tensors[f"critic.biases.{i}"][member] for i in layers],
            )
            for member in range(settings.members)
        ]
        layers = range(len(settings.recovery_sizes) - 1)
        self.recovery: _Network | None = None
        if settings.recovery_sizes:
            self.recovery = _Network(
                [tensors[f"recovery.weights.{i}"] for i in layers],
                [tensors[f"recovery.biases.{i}"] for i in layers],
            )


def _sigmoid(logit: Any) -> Any:
    """`1 / (1 + exp(-logit))` without overflow, for a float or an array."""
    return 0.5 * (1.0 + np.tanh(0.5 * logit))


# ---------------------------------------------------------------------------------------------
# Black box and latency
# ---------------------------------------------------------------------------------------------


class BlackBox:
    """Records of interventions and faults: the last `keep` in memory, and JSON lines on disk.

    The file is bounded: at `maximum_bytes` it is renamed to `<name>.1` (replacing that) and begun
    anew. Flush policy: with `flush="record"` each record is handed to the operating system before
    `decide` returns, so it survives a crash of the program; with `"disk"` it is also synced, so it
    survives a power cut, at the cost of milliseconds per record. A disk error never disturbs the
    control loop: the record stays in memory and is counted in `lost`.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        maximum_bytes: int = 16 * 2**20,
        keep: int = 1000,
        flush: str = "record",
    ) -> None:
        self._file: io.FileIO | None = None
        if flush not in ("record", "disk"):
            raise SettingsError(f"flush is {flush!r}; expected 'record' or 'disk'.")
        self.records: collections.deque[dict[str, Any]] = collections.deque(maxlen=keep)
        self.total, self.lost = 0, 0
        self._path = None if path is None else Path(path)
        self._maximum, self._sync = maximum_bytes, flush == "disk"
        self._size, self._torn = 0, False
        if self._path is not None:
            try:
                self._open(self._path)
            except OSError as error:
                raise SettingsError(f"cannot write {self._path}: {error.strerror}.") from None

    def _open(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = io.FileIO(path, "ab")
        self._size = self._file.tell()
        # A crash may have cut the last record off; the next one gets a line of its own.
        self._torn = self._size > 0

    def add(self, record: dict[str, Any]) -> None:
        """Stores one record; never raises."""
        self.total += 1
        self.records.append(record)
        if self._path is None or self._file is None:
            return
        try:
            line = json.dumps(record, default=_to_json, separators=(",", ":"), allow_nan=False)
            data = b"\n" * self._torn + line.encode() + b"\n"
            if self._size + len(data) > self._maximum and self._size > 0:
                self._file.close()
                os.replace(self._path, self._path.with_name(self._path.name + ".1"))
                self._open(self._path)
                data = data.lstrip(b"\n")
            written = self._file.write(data)
            self._size, self._torn = self._size + written, written < len(data)
            self.lost += self._torn
            if self._sync:
                os.fsync(self._file.fileno())
        except (OSError, ValueError, TypeError):
            self.lost += 1

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()

    def __del__(self) -> None:
        # Nothing is buffered, so forgetting to close loses nothing.
        self.close()


def _to_json(value: Any) -> Any:
    """Arrays as lists; JSON has no NaN, so what is not finite becomes a text."""
    if isinstance(value, np.ndarray):
        return [x if math.isfinite(x) else str(x) for x in value.astype(np.float64).tolist()]
    return str(value)


def read_black_box(path: str | Path) -> list[dict[str, Any]]:
    """All whole records of a file, the older one first; texts become NaN or infinity again.

    Records that a crash cut off are left out.
    """
    path = Path(path)
    records = []
    for one in (path.with_name(path.name + ".1"), path):
        for line in one.read_bytes().split(b"\n") if one.is_file() else ():
            with contextlib.suppress(ValueError):
                records.append(json.loads(line))
    for record in records:
        for name in ("obs", "proposed", "action"):
            if record[name] is not None:
                record[name] = np.array([float(x) for x in record[name]])
    return records


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
    Not thread-safe: one shield per control loop (`fork` gives another one of the same model).
    """

    def __init__(
        self,
        settings: Settings,
        model: _Model | None,
        *,
        mode: str,
        black_box: BlackBox | None = None,
        recovery: Recovery | None = None,
        clock: Callable[[], float] = time.monotonic,
        digest: str = "",
        corrupt: str = "",
    ) -> None:
        """Use `load`. `model` is None where it could not be loaded; `corrupt` says why."""
        self.settings, self.model, self._mode, self.digest = settings, model, mode, digest
        self.black_box = black_box or BlackBox()
        self.latency = LatencyHistogram()
        self._recovery, self._clock, self._corrupt = recovery, clock, corrupt
        obs_size, act_size = len(settings.observations.names), len(settings.actions.names)
        self._obs, self._proposed = np.zeros(obs_size), np.zeros(act_size)
        self._magnitude = np.zeros(max(obs_size, act_size))
        self._action, self._last = np.zeros(act_size), settings.safe_action.copy()
        self._input = np.zeros(obs_size + act_size, np.float32)
        self._low, self._width = settings.actions.low, settings.actions.high - settings.actions.low
        self._low32, self._width32 = (
            np.asarray(x, np.float32)
            for x in (settings.actions.low, settings.actions.high - settings.actions.low)
        )
        self._change = settings.rate * settings.dt
        self._limits_rate = bool(np.isfinite(self._change).any())
        sides = np.concatenate([settings.observations.low, settings.observations.high])
        self._limits_state = bool(np.isfinite(sides).any())
        # The small subtraction forgives a dwell that is a multiple of dt but for rounding.
        self._dwell = math.ceil(settings.minimum_dwell / settings.dt - 1e-9)
        self.tick = 0
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
        clock: Callable[[], float] = time.monotonic,
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
        try:
            digest = manifest_sha256(folder)
            manifest = read_manifest(folder, sha256=sha256 or digest)
            settings = settings_of(manifest)
            model = _Model(read_weights(folder, manifest, settings), settings)
            shield = Shield(
                settings,
                model,
                mode="off",
                black_box=box,
                recovery=recovery,
                clock=clock,
                digest=digest[:16],
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

    @property
    def mode(self) -> str:
        """What it does: off, monitor or enforce."""
        return self._mode

    def set_mode(self, mode: str, *, force: bool = False) -> None:
        """Changes the mode between ticks.

        Raises:
            SettingsError: no such mode, or enforcing is not allowed.
        """
        if mode not in MODES:
            raise SettingsError(f"mode is {mode!r}; expected off, monitor or enforce.")
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
        """Another shield of the same model and black box, with its own memory of the past."""
        return Shield(
            self.settings,
            self.model,
            mode=self.mode,
            black_box=self.black_box,
            recovery=self._recovery,
            clock=self._clock,
            digest=self.digest,
            corrupt=self._corrupt,
        )

    def reset(self) -> None:
        """Forgets the past: call at the start of an episode, or after a deliberate pause."""
        self.engaged, self._held, self._part = False, 0.0, 1.0
        self._memory: Any = None
        self._last_now: float | None = None
        self._last[:] = self.settings.safe_action
        self._has_last = False

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
        check_tensors(tensors, expected_tensors(self.settings), "the new weights")
        if risk_limit is not None and not 0.0 <= risk_limit <= 1.0:
            raise SettingsError(f"risk_limit is {risk_limit}; expected a number from 0 to 1.")
        fresh = _Model(tensors, self.settings)
        self.model.critics, self.model.recovery = fresh.critics, fresh.recovery
        if risk_limit is not None:
            given = self.settings
            share = given.release_limit / given.risk_limit if given.risk_limit > 0.0 else 1.0
            self.model.risk_limit, self.model.release_limit = risk_limit, share * risk_limit

    @property
    def risk_limit(self) -> float:
        """Risk above which proposals are overridden now."""
        return self.settings.risk_limit if self.model is None else self.model.risk_limit

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
        unit = 2.0 * (np.asarray(action, np.float64) - self._low) / self._width - 1.0
        return unit.astype(np.float32)

    # -- one tick -----------------------------------------------------------------------------

    def decide(
        self,
        obs: Any,
        proposed_action: Any,
        *,
        stamp: float | None = None,
        now: float | None = None,
    ) -> Decision:
        """Chooses the action of one tick, in physical units. Raises nothing.

        Args:
            obs: the signals in the manifest's order, or a mapping from their names.
            proposed_action: what the policy wants, likewise.
            stamp: when `obs` was measured; checked against `now` (default: the clock).
            now: the time of this tick; without `stamp` and `now` no timing is checked.
        """
        return self._timed_tick(obs, proposed_action, stamp, now, None, "")

    def guarded_step(
        self, policy: Policy, obs: Any, *, now: float | None = None, stamp: float | None = None
    ) -> Decision:
        """As `decide`, for `policy(obs)`, which may raise, return nonsense or take too long.

        `now` is the time of the tick (default: the clock). A tick that comes later than
        `maximum_period` after the last gives the safe action, as does a policy over its budget.
        """
        start = self._clock()
        now = start if now is None else now
        try:
            proposed, fault, detail = policy(obs), None, ""
        except Exception as error:
            proposed, fault, detail = None, Reason.POLICY_RAISED, _describe(error)
        took = self._clock() - start
        budget = self.settings.policy_budget
        if fault is None and budget is not None and not took <= budget:
            fault, detail = Reason.SLOW_POLICY, f"{took:.6g} s"
        return self._timed_tick(obs, proposed, stamp, now, fault, detail)

    def _timed_tick(
        self,
        obs: Any,
        proposed: Any,
        stamp: float | None,
        now: float | None,
        fault: Reason | None,
        detail: str,
    ) -> Decision:
        start = time.perf_counter_ns()
        self.tick += 1
        self._detail = detail
        try:
            # Whatever overflows becomes infinite or NaN, and is found by the checks.
            with np.errstate(all="ignore"):
                decision = self._decide(obs, proposed, stamp, now, fault)
        except Exception as error:
            self._detail = _describe(error)
            decision = self._safe(Reason.INTERNAL_ERROR, math.nan)
        if decision.reason is not Reason.OK:
            self._record(decision, obs, proposed, now)
        self.latency.add(time.perf_counter_ns() - start)
        return decision

    def _decide(
        self, obs: Any, proposed: Any, stamp: float | None, now: float | None, fault: Reason | None
    ) -> Decision:
        if self.model is None:
            self._detail = self._corrupt
            return self._safe(Reason.CORRUPT_MODEL, math.nan)
        time_fault = self._check_time(stamp, now)
        obs_fault = self._read(
            obs,
            self.settings.observations,
            self._obs,
            Reason.BAD_OBSERVATION,
            Reason.NAN_OBSERVATION,
        )
        if obs_fault is None and self._limits_state and self._outside():
            return self._safe(Reason.STATE_LIMIT, math.nan)
        action_fault = self._read_action(proposed) if fault is None else None
        # A tick that cannot be vouched for is decided before any network is asked.
        first = time_fault or obs_fault or fault or action_fault
        if first is not None:
            no_action = action_fault is not None or fault is Reason.POLICY_RAISED
            blind = obs_fault is not None and self._limits_state
            if self.mode == "enforce" or no_action or blind:
                return self._safe(first, math.nan)
            if fault is not None:
                # A slow policy in monitor mode: its action is passed on, if it is one.
                action_fault = self._read_action(proposed)
                if action_fault is not None:
                    return self._safe(action_fault, math.nan)
            return self._execute(math.nan, self._bound(self._proposed), first)
        clipped = self._bound(self._proposed)
        if self.mode == "off":
            return self._execute(math.nan, clipped, Reason.HARD_LIMIT if clipped else Reason.OK)
        return self._judge(clipped)

    def _judge(self, clipped: bool) -> Decision:
        """Asks the critic about the bounded proposal, and the recovery policy where it must."""
        risk = self._risk()
        if not math.isfinite(risk):
            if self.mode == "enforce":
                return self._safe(Reason.MODEL_FAULT, risk)
            return self._execute(risk, clipped, Reason.MODEL_FAULT)
        self._hysteresis(risk)
        if not self.engaged:
            self._memory = None
            return self._execute(risk, clipped, Reason.HARD_LIMIT if clipped else Reason.OK)
        reason = Reason.RISK if risk > self.risk_limit else Reason.HOLDING
        if self.mode == "monitor":
            return self._execute(risk, clipped, reason)
        if not self._recover():
            return self._safe(Reason.RECOVERY_FAULT, risk)
        return self._execute(risk, True, reason)

    def _hysteresis(self, risk: float) -> None:
        """Engages above the limit; releases at the release limit, but not before the dwell."""
        if not self.engaged:
            self.engaged, self._held = risk > self.risk_limit, 0.0
            return
        self._held += self._part
        # The small addition forgives sums of parts of ticks their rounding.
        if risk <= self._networks().release_limit and self._held + 1e-9 >= self._dwell:
            self.engaged = False

    def _risk(self) -> float:
        obs_size = len(self._obs)
        x = self._input[:obs_size]
        np.copyto(x, self._obs, casting="same_kind")
        np.subtract(x, self.settings.mean, out=x)
        np.divide(x, self.settings.std, out=x)
        self._input[obs_size:] = self._scale(self._action)
        logits = [float(critic.one(self._input)[0]) for critic in self._networks().critics]
        # `max` alone would drop a NaN that is not the first.
        sound = all(math.isfinite(logit) for logit in logits)
        return float(_sigmoid(max(logits))) if sound else math.nan

    def _recover(self) -> bool:
        """The recovery action into `_action`, within its limits; False where it is none."""
        try:
            given: Any = self._recovery_action()
            fault = self._read_action(given)
        except Exception as error:
            self._detail = _describe(error)
            return False
        if fault is None:
            self._bound(self._proposed)
        return fault is None

    def _recovery_action(self) -> Any:
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
        unit = network.one(self._input[: len(self._obs)])
        np.tanh(unit, out=unit)
        return self._low32 + np.float32(0.5) * (unit + np.float32(1.0)) * self._width32

    # -- hard limits --------------------------------------------------------------------------

    def _bound(self, action: np.ndarray) -> bool:
        """Clips `action` into `_action`; whether that changed it by more than float32 rounding.

        Inside the limits the result is bit for bit what was given.
        """
        out = self._action
        np.maximum(action, self._low, out=out)
        np.minimum(out, self.settings.actions.high, out=out)
        if self._limits_rate and self._has_last:
            change = self._change * self._part
            np.maximum(out, self._last - change, out=out)
            np.minimum(out, self._last + change, out=out)
        return bool((np.abs(out - action) > 1e-6 * self._width).any())

    def _outside(self) -> bool:
        limits = self.settings.observations
        outside = (self._obs < limits.low) | (self._obs > limits.high)
        if outside.any():
            self._detail = limits.names[int(np.argmax(outside))]
        return bool(outside.any())

    # -- reading inputs -----------------------------------------------------------------------

    def _read(
        self, given: Any, signals: Signals, into: np.ndarray, bad: Reason, nan: Reason
    ) -> Reason | None:
        """Copies a vector, or a mapping from names, into a buffer; `bad` or `nan` if it is none."""
        try:
            if isinstance(given, Mapping):
                given = [given[name] for name in signals.names]
            elif isinstance(given, np.ma.MaskedArray):
                given = np.ma.filled(given.astype(np.float64), math.nan)
            values = np.asarray(given)
            if values.shape != into.shape or values.dtype.kind not in "fiub":
                self._detail = f"{values.dtype}{list(values.shape)}"
                return bad
            into[:] = values
        except KeyError as error:
            self._detail = f"{error} is missing"
            return bad
        except Exception as error:
            self._detail = _describe(error)
            return bad
        magnitude = self._magnitude[: len(into)]
        np.abs(into, out=magnitude)
        # NaN is not less than anything.
        if magnitude.max() < _LARGEST_INPUT:
            return None
        self._detail = signals.names[int(np.argmax(~(magnitude < _LARGEST_INPUT)))]
        return nan

    def _read_action(self, given: Any) -> Reason | None:
        signals = self.settings.actions
        fault = self._read(given, signals, self._proposed, Reason.BAD_ACTION, Reason.NAN_ACTION)
        if fault is not None:
            return fault
        below = self._low - self._proposed > self._width
        above = self._proposed - signals.high > self._width
        if not (below | above).any():
            return None
        self._detail = signals.names[int(np.argmax(below | above))]
        return Reason.WILD_ACTION

    def _check_time(self, stamp: float | None, now: float | None) -> Reason | None:
        self._part = 1.0
        if now is None and stamp is None:
            return None
        now = self._clock() if now is None else now
        last, self._last_now = self._last_now, now
        if not math.isfinite(now) or (last is not None and now < last):
            # A clock that is set back must not stop the robot for more than this tick.
            self._last_now = now if math.isfinite(now) else last
            self._detail = f"now {now!r}, before it {last!r}"
            return Reason.CLOCK
        limits = self.settings
        if last is not None:
            # Of a tick: rates and the dwell are per second, also of a loop that is faster than dt.
            # Never 0, which has no product with a rate that is not limited.
            self._part = min(max((now - last) / limits.dt, 1e-9), 1.0)
        if stamp is not None:
            age = now - stamp
            if not math.isfinite(age) or age < -limits.dt:
                self._detail = f"measured at {stamp!r}, now {now!r}"
                return Reason.CLOCK
            if limits.maximum_age is not None and age > limits.maximum_age:
                self._detail = f"{age:.6g} s old"
                return Reason.STALE_OBSERVATION
        longest = limits.maximum_period
        if last is not None and longest is not None and now - last > longest:
            self._detail = f"{now - last:.6g} s after the last tick"
            return Reason.LATE_TICK
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
        return self._execute(risk, True, reason)

    def _execute(self, risk: float, overridden: bool, reason: Reason) -> Decision:
        self._last[:] = self._action
        self._has_last = True
        return Decision(self._action.copy(), risk, overridden, reason)

    def _record(self, decision: Decision, obs: Any, proposed: Any, now: float | None) -> None:
        record = {
            "tick": self.tick,
            "wall_time": time.time(),
            "now": now if now is not None and math.isfinite(now) else None,
            "model": self.digest,
            "mode": self.mode,
            "reason": str(decision.reason),
            "fault": decision.reason not in _NO_FAULT,
            "overridden": decision.overridden,
            "risk": decision.risk if math.isfinite(decision.risk) else None,
            "obs": self._as_record(obs, self.settings.observations),
            "proposed": self._as_record(proposed, self.settings.actions),
            "action": decision.action.copy(),
            "detail": self._detail,
        }
        self.black_box.add(record)

    def _as_record(self, given: Any, signals: Signals) -> np.ndarray | None:
        """What was given, bit for bit, if it was a vector of this many numbers at all."""
        try:
            if isinstance(given, Mapping):
                given = [given.get(name, math.nan) for name in signals.names]
            values = np.array(given, np.float64)
        except Exception:
            return None
        return values if values.shape == signals.low.shape else None


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {_short(str(error))}"


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
    except (TypeError, ValueError):
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


def check_folder(folder: str | Path) -> dict[str, Any]:
    """Verifies every file of an export folder; what the folder is, in a few words.

    Raises:
        ModelError: a file is missing or changed, or the shield does not answer as its trainer did.
    """
    manifest = read_manifest(folder)
    shield = Shield.load(folder)
    files = manifest.get("files")
    for name, digest in files.items() if isinstance(files, dict) else ():
        if name != os.path.basename(name) or name in ("", ".", ".."):
            raise ModelError(f"the manifest lists a file outside its folder: {_short(name)}.")
        data = _read_bounded(Path(folder) / name, 8 * _MAXIMUM_PARAMETERS)
        if hashlib.sha256(data).hexdigest() != digest:
            raise ModelError(f"{Path(folder) / name} was changed after the export.")
    settings = shield.settings
    return {
        "name": manifest.get("name"),
        "observations": list(settings.observations.names),
        "actions": list(settings.actions.names),
        "dt_s": settings.dt,
        "risk_limit": settings.risk_limit,
        "enforce_allowed": settings.enforce_allowed,
        "time_to_act": _time_to_act(manifest),
        "known_answers_differ_by": check_known_answers(manifest, shield),
        "manifest_sha256": manifest_sha256(folder),
        "warnings": manifest.get("warnings", []),
    }


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
    with tempfile.TemporaryDirectory() as temporary:
        box = BlackBox(Path(temporary) / "black_box.jsonl")
        shield = Shield.load(folder, mode=mode, force=True, black_box=box)
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
    ):
        one = verbs.add_parser(verb, help=text, description=text)
        one.add_argument("folder", nargs="?", default=str(Path(__file__).parent))
        if verb == "bench":
            one.add_argument("--ticks", type=int, default=1_000_000)
    flags = parser.parse_args(arguments)
    if flags.verb == "bench" and flags.ticks < 1:
        parser.error(f"--ticks is {flags.ticks}; expected at least 1")
    try:
        result = (
            check_folder(flags.folder)
            if flags.verb == "check"
            else bench(flags.folder, ticks=flags.ticks)
        )
    except ShieldError as error:
        print(f"safemesa_shield: {error}", file=sys.stderr)
        return 2
    for name, value in result.items():
        print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
    if flags.verb == "check":
        print("The shield is sound.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
