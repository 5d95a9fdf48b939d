"""The same networks as an ONNX graph, for C++ and ROS 2 (needs the extra `onnx`).

Inputs `observation [n, obs]` and `action [n, act]`, outputs `risk [n]` and `recovery [n, act]`, all
float32 in physical units: normaliser and action scaling are inside (`recovery` only where it is a
network). The dynamics monitor is a graph of its own. The graphs only compute; modes, limits,
hysteresis and faults are the caller's (`safemesa_shield.py` shows them).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from safemesa.core.errors import ConfigurationError
from safemesa.core.spaces import Spaces
from safemesa.learners.recovery import RecoveryNetwork
from safemesa.networks.mlp import MLP
from safemesa.phases.storage.artefacts import RiskModel

OPSET, IR_VERSION = 17, 8
"""Old enough for every onnxruntime of the last years."""


class _Graph:
    """Nodes and constants in the order of their use."""

    def __init__(self) -> None:
        try:
            import onnx
        except ImportError as error:
            raise ConfigurationError(
                "ONNX export needs the package onnx. Install it with: pip install 'safemesa[onnx]'"
            ) from error
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: Any) -> str:
        name = f"constant_{len(self.constants)}"
        array = np.asarray(value)
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def apply(self, kind: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        output = output or f"{kind}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def scaled(self, x: str, shift: np.ndarray, divisor: np.ndarray) -> str:
        """`(x - shift) / divisor`."""
        moved = self.apply("Sub", [x, self.constant(shift.astype(np.float32))])
        return self.apply("Div", [moved, self.constant(divisor.astype(np.float32))])

    def network(self, x: str, weights: Sequence[np.ndarray], biases: Sequence[np.ndarray]) -> str:
        last = len(weights) - 1
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            product = self.apply("MatMul", [x, self.constant(weight)])
            x = self.apply("Add", [product, self.constant(bias)])
            if layer < last:
                x = self.apply("Relu", [x])
        return x

    def write(
        self, path: Path, inputs: Mapping[str, int], outputs: Mapping[str, int | None]
    ) -> None:
        """Checks and writes; widths of inputs and outputs `[n, width]`, None for `[n]`."""

        def tensor(name: str, width: int | None) -> Any:
            shape = ["n"] if width is None else ["n", width]
            return helper.make_tensor_value_info(name, self.onnx.TensorProto.FLOAT, shape)

        helper = self.onnx.helper
        read, said = ([tensor(*one) for one in part.items()] for part in (inputs, outputs))
        made = helper.make_model(
            helper.make_graph(self.nodes, "shield", read, said, self.constants),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="safemesa",
        )
        self.onnx.checker.check_model(made, full_check=True)
        path.write_bytes(made.SerializeToString(deterministic=True))


def write_onnx(path: Path, model: RiskModel, spaces: Spaces) -> None:
    """Writes and checks the graph.

    Raises:
        ConfigurationError: the extra is not installed.
    """
    graph = _Graph()
    low = np.asarray(spaces.action_low, np.float64)
    width = np.asarray(spaces.action_high, np.float64) - low
    mean, std = np.asarray(model.normaliser.mean), np.asarray(model.normaliser.std)
    obs = graph.scaled("observation", mean, std)
    # 2 (a - low) / width - 1 = (a - middle) / (width / 2)
    action = graph.scaled("action", low + 0.5 * width, 0.5 * width)
    pair = graph.apply("Concat", [obs, action], axis=1)
    logits = [
        graph.network(pair, *_member(model.critic.ensemble.members, member))
        for member in range(model.critic.ensemble.members.biases[0].shape[0])
    ]
    logit = graph.apply("Max", logits) if len(logits) > 1 else logits[0]
    risk = graph.apply("Sigmoid", [logit])
    graph.apply("Squeeze", [risk, graph.constant(np.array([1]))], "risk")
    outputs: dict[str, int | None] = {"risk": None}
    if isinstance(model.recovery, RecoveryNetwork):
        outputs["recovery"] = spaces.action_size
        network = model.recovery.network
        raw = graph.network(
            obs, [np.asarray(w) for w in network.weights], [np.asarray(b) for b in network.biases]
        )
        unit = graph.apply("Tanh", [raw])
        half = graph.constant((0.5 * width).astype(np.float32))
        scaled = graph.apply("Mul", [unit, half])
        middle = graph.constant((low + 0.5 * width).astype(np.float32))
        graph.apply("Add", [scaled, middle], "recovery")

    graph.write(path, {"observation": spaces.obs_size, "action": spaces.action_size}, outputs)


def write_monitor_onnx(
    path: Path, tensors: Mapping[str, np.ndarray], outside: float, spaces: Spaces
) -> None:
    """The dynamics monitor of one step, from what `export.monitor_tensors` gives.

    Inputs `observation`, `action` and `next_observation` in physical units; outputs `[n]`:
    `surprise`, `disagreement`, and `score`. CUSUM is left to the caller:
    `statistic = max(0, statistic + score - reference)`.

    Raises:
        ConfigurationError: the extra is not installed.
    """
    graph = _Graph()
    low = np.asarray(spaces.action_low, np.float64)
    width = np.asarray(spaces.action_high, np.float64) - low
    action = graph.scaled("action", low + 0.5 * width, 0.5 * width)
    pair = graph.apply("Concat", ["observation", action], axis=1)
    pair = graph.scaled(pair, *tensors["monitor.inputs"])
    # Networks, rows, signals.
    x = graph.apply("Unsqueeze", [pair, graph.constant(np.array([0]))])
    last = sum(name.startswith("monitor.weights.") for name in tensors) - 1
    for layer in range(last + 1):
        product = graph.apply("MatMul", [x, graph.constant(tensors[f"monitor.weights.{layer}"])])
        bias = graph.constant(tensors[f"monitor.biases.{layer}"][:, None])
        x = graph.apply("Add", [product, bias])
        if layer < last:
            x = graph.apply("Mul", [x, graph.apply("Sigmoid", [x])])
    half = spaces.obs_size
    sizes = graph.constant(np.array([half, half]))
    graph.nodes.append(graph.onnx.helper.make_node("Split", [x, sizes], ["mean", "raw"], axis=2))
    least, most = (graph.constant(one) for one in tensors["monitor.log_variances"])
    bounded = graph.apply("Softplus", [graph.apply("Sub", [most, "raw"])])
    bounded = graph.apply("Sub", [graph.apply("Sub", [most, bounded]), least])
    spread = graph.apply("Exp", [graph.apply("Add", [graph.apply("Softplus", [bounded]), least])])
    inherent = graph.apply("ReduceMean", [spread], axes=[0], keepdims=0)
    middle = graph.apply("ReduceMean", ["mean"], axes=[0], keepdims=0)
    apart = graph.apply("Sub", ["mean", middle])
    apart = graph.apply("ReduceMean", [graph.apply("Mul", [apart, apart])], axes=[0], keepdims=0)
    variance = graph.apply("Add", [inherent, apart])
    change = graph.apply("Sub", ["next_observation", "observation"])
    change = graph.scaled(change, *tensors["monitor.changes"])
    residual = graph.apply("Sub", [change, middle])
    squared = graph.apply("Div", [graph.apply("Mul", [residual, residual]), variance])
    graph.apply("ReduceMean", [squared], "surprise", axes=[1], keepdims=0)
    share = graph.apply("Div", [apart, variance])
    graph.apply("ReduceMean", [share], "disagreement", axes=[1], keepdims=0)
    score = _interpolated(graph, "surprise", *tensors["monitor.scale"])
    far = graph.apply("Greater", ["disagreement", graph.constant(np.float32(outside))])
    lowered = graph.apply("Min", [score, graph.constant(np.float32(0))])
    graph.apply("Where", [far, lowered, score], "score")
    inputs = {"observation": half, "action": spaces.action_size, "next_observation": half}
    graph.write(path, inputs, dict.fromkeys(("surprise", "disagreement", "score")))


def _interpolated(graph: _Graph, x: str, levels: np.ndarray, values: np.ndarray) -> str:
    """`np.interp(x, levels, values)` of `[n]`."""
    if len(levels) == 1:
        levels, values = np.repeat(levels, 2), np.repeat(values, 2)
    column = graph.apply("Unsqueeze", [x, graph.constant(np.array([1]))])
    reached = graph.apply("GreaterOrEqual", [column, graph.constant(levels[1:-1])])
    reached = graph.apply("Cast", [reached], to=graph.onnx.TensorProto.INT64)
    place = graph.apply("ReduceSum", [reached, graph.constant(np.array([1]))], keepdims=0)
    widths = np.diff(levels)
    steps = np.divide(np.diff(values), widths, out=np.zeros_like(widths), where=widths > 0.0)
    start, slope, value = (
        graph.apply("Gather", [graph.constant(one), place])
        for one in (levels[:-1], steps, values[:-1])
    )
    ends = [graph.constant(np.float32(one)) for one in (levels[0], levels[-1])]
    beyond = graph.apply("Sub", [graph.apply("Clip", [x, *ends]), start])
    return graph.apply("Add", [value, graph.apply("Mul", [slope, beyond])])


def _member(members: MLP, member: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weights and biases of one critic of the ensemble."""
    weights = [np.asarray(weight[member]) for weight in members.weights]
    return weights, [np.asarray(bias[member]) for bias in members.biases]
