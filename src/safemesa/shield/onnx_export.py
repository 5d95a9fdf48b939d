"""The same networks as an ONNX graph, for C++ and ROS 2 (needs the extra `onnx`).

Inputs `observation [n, obs]` and `action [n, act]`, outputs `risk [n]` and `recovery [n, act]`, all
float32 in physical units: normaliser and action scaling are inside (`recovery` only where it is a
network). The graph only computes; modes,
limits, hysteresis and faults are the caller's (`safemesa_shield.py` shows them).
"""

from collections.abc import Sequence
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

    def __init__(self, helper: Any, numpy_helper: Any) -> None:
        self.helper, self.numpy_helper = helper, numpy_helper
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: Any) -> str:
        name = f"constant_{len(self.constants)}"
        array = np.asarray(value)
        self.constants.append(self.numpy_helper.from_array(array, name))
        return name

    def apply(self, kind: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        output = output or f"{kind}_{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(kind, list(inputs), [output], **attributes))
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


def write_onnx(path: Path, model: RiskModel, spaces: Spaces) -> None:
    """Writes and checks the graph.

    Raises:
        ConfigurationError: the extra is not installed.
    """
    try:
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise ConfigurationError(
            "ONNX export needs the package onnx. Install it with: pip install 'safemesa[onnx]'"
        ) from error
    graph = _Graph(helper, numpy_helper)
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
    outputs: list[tuple[str, tuple[str | int, ...]]] = [("risk", ("n",))]
    if isinstance(model.recovery, RecoveryNetwork):
        outputs.append(("recovery", ("n", spaces.action_size)))
        network = model.recovery.network
        raw = graph.network(
            obs, [np.asarray(w) for w in network.weights], [np.asarray(b) for b in network.biases]
        )
        unit = graph.apply("Tanh", [raw])
        half = graph.constant((0.5 * width).astype(np.float32))
        scaled = graph.apply("Mul", [unit, half])
        middle = graph.constant((low + 0.5 * width).astype(np.float32))
        graph.apply("Add", [scaled, middle], "recovery")

    def tensor(name: str, *shape: str | int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))

    inputs = [
        tensor("observation", "n", spaces.obs_size),
        tensor("action", "n", spaces.action_size),
    ]
    described = [tensor(name, *shape) for name, shape in outputs]
    made = helper.make_model(
        helper.make_graph(graph.nodes, "shield", inputs, described, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="safemesa",
    )
    onnx.checker.check_model(made, full_check=True)
    path.write_bytes(made.SerializeToString(deterministic=True))


def _member(members: MLP, member: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weights and biases of one critic of the ensemble."""
    weights = [np.asarray(weight[member]) for weight in members.weights]
    return weights, [np.asarray(bias[member]) for bias in members.biases]
