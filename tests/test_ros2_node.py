"""The ROS 2 node of the examples, on stand-ins for ROS 2's modules: it decides once per tick."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from shields import SAFE_ACTION, make_shield_folder

from safemesa.shield import runtime

NODE = Path(__file__).resolve().parents[1] / "examples" / "ros2" / "shield_node.py"


class Message(SimpleNamespace):
    """Any message: what it is made with, and a header."""

    OK, WARN = b"\x00", b"\x01"

    def __init__(self, **fields: Any) -> None:
        super().__init__(header=SimpleNamespace(stamp=None), **fields)


class Node:
    """What the example uses of `rclpy.node.Node`, with a clock that the test sets."""

    parameters: ClassVar[dict[str, Any]] = {}
    seconds = 0.0

    def __init__(self, name: str) -> None:
        self.name, self.heard, self.sent, self.timers = name, {}, {}, []

    def declare_parameter(self, name: str, default: Any) -> SimpleNamespace:
        return SimpleNamespace(value=self.parameters.get(name, default))

    def create_subscription(self, kind: type, topic: str, callback: Any, quality: Any) -> None:
        self.heard[topic] = callback

    def create_publisher(self, kind: type, topic: str, depth: int) -> SimpleNamespace:
        self.sent[topic] = []
        return SimpleNamespace(publish=self.sent[topic].append)

    def create_timer(self, period: float, callback: Any) -> None:
        self.timers.append((period, callback))

    def get_clock(self) -> SimpleNamespace:
        now = SimpleNamespace(nanoseconds=round(self.seconds * 1e9), to_msg=lambda: self.seconds)
        return SimpleNamespace(now=lambda: now)

    def get_logger(self) -> SimpleNamespace:
        return SimpleNamespace(warning=lambda text: None)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    names = {
        "rclpy": {},
        "rclpy.node": {"Node": Node},
        "rclpy.qos": {"qos_profile_sensor_data": 5},
        "std_msgs": {},
        "std_msgs.msg": {"Float64MultiArray": Message},
        "diagnostic_msgs": {},
        "diagnostic_msgs.msg": {
            name: Message for name in ("DiagnosticArray", "DiagnosticStatus", "KeyValue")
        },
    }
    for name, attributes in names.items():
        module = ModuleType(name)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "safemesa_shield", runtime)
    folder = make_shield_folder(tmp_path / "shield")
    monkeypatch.setattr(
        Node,
        "parameters",
        {
            "folder": str(folder),
            "mode": "enforce",
            "black_box": str(tmp_path / "box.jsonl"),
            "emergency_action": list(SAFE_ACTION),
        },
    )
    spec = importlib.util.spec_from_file_location("shield_node", NODE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.ShieldNode()
    yield made
    made.shield.black_box.close()


def tick(node: Any) -> np.ndarray:
    node.seconds += node.dt
    node.timers[0][1]()
    return np.asarray(node.sent["~/action"][-1].data)


def test_the_node_sends_what_the_shield_decides(node: Any) -> None:
    settings = node.shield.settings
    twin = runtime.Shield.load(Node.parameters["folder"], mode="enforce")
    obs, proposed = np.zeros(len(settings.mean)), np.zeros(len(SAFE_ACTION))
    assert node.timers[0][0] == settings.dt
    for _ in range(3):
        node.heard["~/state"](Message(data=obs.tolist()))
        node.heard["~/proposed"](Message(data=proposed.tolist()))
        stamp = node.now()
        sent = tick(node)
        expected = twin.decide(obs, proposed, stamp=stamp, now=node.now())
        np.testing.assert_array_equal(sent, expected.action)


def test_a_policy_that_falls_silent_ends_in_the_safe_action(node: Any) -> None:
    settings = node.shield.settings
    np.testing.assert_allclose(tick(node), SAFE_ACTION)  # nothing was heard yet
    node.heard["~/proposed"](Message(data=[0.0] * len(SAFE_ACTION)))
    for _ in range(4):
        node.heard["~/state"](Message(data=[0.0] * len(settings.mean)))
        sent = tick(node)
    np.testing.assert_allclose(sent, SAFE_ACTION)
    assert node.last_reason is not runtime.Reason.OK


def test_the_node_tells_what_it_does(node: Any) -> None:
    tick(node)
    node.timers[1][1]()
    (status,) = node.sent["~/diagnostics"][-1].status
    told = {entry.key: entry.value for entry in status.values}
    assert status.level == Message.WARN
    assert told["mode"] == "enforce"
