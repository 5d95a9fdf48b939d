"""Limit expressions such as `abs(tilt) > 0.5 or contact`: parsed into a closed set of operations.

Nothing is ever evaluated as Python: the syntax tree is walked once, every node must be one that is
listed here, and the result is a chain of NumPy operations on named signals.
"""

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from safemesa.core.errors import ConfigurationError

MAXIMUM_LENGTH = 2_000
MAXIMUM_DEPTH = 60

Values = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class _Inputs:
    """Signals of some rows, and where a number on the way was undefined."""

    values: Values
    undefined: list[np.ndarray] = field(default_factory=list)

    def note(self, result: Any) -> Any:
        """Remembers where a result is NaN, which a comparison or a power would hide."""
        self.undefined.append(np.asarray(np.isnan(result)))
        return result


Compute = Callable[[_Inputs], np.ndarray]

_ARITHMETIC: dict[type[ast.operator], Callable] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
}
_COMPARISON: dict[type[ast.cmpop], Callable] = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
}
FUNCTIONS: dict[str, tuple[Callable, int | None]] = {
    "abs": (np.abs, 1),
    "sqrt": (np.sqrt, 1),
    "sin": (np.sin, 1),
    "cos": (np.cos, 1),
    "hypot": (np.hypot, 2),
    "min": (np.minimum, None),
    "max": (np.maximum, None),
}
"""Name to (function, number of arguments); None takes two or more."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Limit:
    """A parsed expression that is true where the constraint is violated."""

    text: str
    signals: tuple[str, ...]
    """Names of the signals that it reads, in the order of their first use."""
    _compute: Compute

    def violated(self, values: Values) -> np.ndarray:
        """Cost of every row, float `[n]`: 1 violated, 0 not; NaN where it is unknown.

        Unknown is where a signal is missing, and where a part has no value, such as `0 / 0` or
        the root of a negative number: a comparison with NaN is false, which would read as safe.
        """
        inputs = _Inputs(values)
        with np.errstate(all="ignore"):
            verdict = np.asarray(self._compute(inputs))
        known = np.ones(len(values[self.signals[0]]), np.bool_)
        for name in self.signals:
            known &= np.isfinite(values[name])
        for undefined in inputs.undefined:
            known &= ~undefined
        return np.where(known, verdict.astype(np.float64), np.nan)


def parse_limit(text: str) -> Limit:
    """Parses a limit expression.

    Allowed: names and `name[index]`, numbers, `+ - * / **`, comparisons (also chained), `and`,
    `or`, `not`, parentheses and the functions of `FUNCTIONS`. The whole must be a comparison or a
    combination of some.

    Raises:
        ConfigurationError: anything else, too long, or nested too deeply; the part is named.
    """
    if len(text) > MAXIMUM_LENGTH:
        raise ConfigurationError(
            f"the limit has {len(text)} characters, expected at most {MAXIMUM_LENGTH}."
        )
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigurationError(
            f"the limit {text[:80]!r} cannot be read: {error}. Write it as in "
            "'abs(position) > 1.0 or contact > 0.5'."
        ) from error
    signals: dict[str, None] = {}
    compute, kind = _Walker(text, signals).walk(tree.body, 0)
    if kind != "truth":
        raise ConfigurationError(
            f"the limit {text!r} is a number, expected a comparison that is true where the "
            "constraint is violated, such as 'contact > 0.5'."
        )
    if not signals:
        raise ConfigurationError(f"the limit {text!r} reads no signal, expected at least one.")
    return Limit(text=text, signals=tuple(signals), _compute=compute)


def signal_name(node: ast.expr) -> str | None:
    """`x` or `x[3]` as the name of a signal; None for any other expression."""
    if isinstance(node, ast.Name):
        return node.id
    if (
        isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Name)
        and isinstance(node.slice, ast.Constant)
        and type(node.slice.value) is int
    ):
        return f"{node.value.id}[{node.slice.value}]"
    return None


class _Walker:
    """One pass over the tree; every node becomes `(compute, "truth" or "number")`."""

    def __init__(self, text: str, signals: dict[str, None]) -> None:
        self.text = text
        self.signals = signals

    def walk(self, node: ast.expr, depth: int) -> tuple[Compute, str]:
        if depth > MAXIMUM_DEPTH:
            raise ConfigurationError(f"the limit nests deeper than {MAXIMUM_DEPTH} levels.")
        name = signal_name(node)
        if name is not None:
            self.signals[name] = None
            return (lambda inputs: inputs.values[name]), "number"
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return self._constant(value), "number"
            case ast.BoolOp():
                combine = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
                return self._fold(combine, node.values, "truth", depth), "truth"
            case ast.UnaryOp(op=ast.Not()):
                inner = self._typed(node.operand, "truth", depth)
                return (lambda inputs: np.logical_not(inner(inputs))), "truth"
            case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
                number = self._typed(node.operand, "number", depth)
                sign = -1.0 if isinstance(node.op, ast.USub) else 1.0
                return (lambda inputs: sign * number(inputs)), "number"
            case ast.BinOp() if type(node.op) in _ARITHMETIC:
                operate = _ARITHMETIC[type(node.op)]
                return self._fold(operate, [node.left, node.right], "number", depth), "number"
            case ast.Compare():
                return self._comparison(node, depth), "truth"
            case ast.Call(func=ast.Name(id=function), keywords=[]) if function in FUNCTIONS:
                return self._call(function, node.args, depth), "number"
        shown = ast.get_source_segment(self.text.strip(), node) or type(node).__name__
        raise ConfigurationError(
            f"the limit {self.text!r} holds {shown!r}, which is not allowed. Allowed are signals, "
            f"numbers, + - * / **, comparisons, and, or, not, {', '.join(FUNCTIONS)}."
        )

    def _typed(self, node: ast.expr, expected: str, depth: int) -> Compute:
        compute, kind = self.walk(node, depth + 1)
        if kind != expected:
            shown = ast.get_source_segment(self.text.strip(), node)
            need = "a comparison" if expected == "truth" else "a number"
            raise ConfigurationError(
                f"the limit {self.text!r}: {shown!r} is no {need.split()[1]}, expected {need}, "
                "such as 'contact > 0.5' for a comparison."
            )
        return compute

    def _constant(self, value: int | float) -> Compute:
        try:
            number = float(value)
        except OverflowError:
            number = float("inf")
        if not np.isfinite(number):
            raise ConfigurationError(f"the limit {self.text[:80]!r} holds a number without end.")
        constant = np.asarray(number)
        return lambda inputs: constant

    def _fold(self, combine: Callable, nodes: list[ast.expr], expected: str, depth: int) -> Compute:
        parts = [self._typed(node, expected, depth) for node in nodes]

        def folded(inputs: _Inputs) -> np.ndarray:
            result = parts[0](inputs)
            for part in parts[1:]:
                result = combine(result, part(inputs))
                if expected == "number":
                    inputs.note(result)
            return result

        return folded

    def _comparison(self, node: ast.Compare, depth: int) -> Compute:
        sides = [self._typed(one, "number", depth) for one in (node.left, *node.comparators)]
        unknown = [op for op in node.ops if type(op) not in _COMPARISON]
        if unknown:
            raise ConfigurationError(
                f"the limit {self.text!r} compares by {type(unknown[0]).__name__}; expected one "
                "of < <= > >= == !=."
            )
        compare = [_COMPARISON[type(op)] for op in node.ops]

        def chained(inputs: _Inputs) -> np.ndarray:
            results = [side(inputs) for side in sides]
            verdict = compare[0](results[0], results[1])
            for index in range(1, len(compare)):
                verdict = verdict & compare[index](results[index], results[index + 1])
            return verdict

        return chained

    def _call(self, function: str, arguments: list[ast.expr], depth: int) -> Compute:
        operate, count = FUNCTIONS[function]
        given = len(arguments)
        if (count is None and given < 2) or (count is not None and given != count):
            wanted = "2 or more" if count is None else str(count)
            raise ConfigurationError(
                f"the limit {self.text!r}: {function} takes {wanted} arguments, given {given}."
            )
        if count == 1:
            inner = self._typed(arguments[0], "number", depth)
            return lambda inputs: inputs.note(operate(inner(inputs)))
        return self._fold(operate, arguments, "number", depth)
