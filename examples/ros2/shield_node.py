"""A ROS 2 node between a policy and a robot. Tested with stand-ins for ROS 2's modules alone.

For Humble (Python 3.10) and later.

    ros2 run <your package> shield_node --ros-args -p folder:=/opt/my_shield -p mode:=monitor

It listens to `~/state` and `~/proposed` (std_msgs/Float64MultiArray in the manifest's order and
units), publishes `~/action` at the rate of the manifest's dt, and tells what it does on
`~/diagnostics`. Put `safemesa_shield.py` of the export folder on the Python path. A message that
does not come is a stale observation or a missing action, and ends in the safe action.
"""

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from safemesa_shield import Reason, Shield
from std_msgs.msg import Float64MultiArray


class ShieldNode(Node):
    """Decides once per dt, whatever has arrived."""

    def __init__(self) -> None:
        super().__init__("shield")
        folder = self.declare_parameter("folder", "").value
        mode = self.declare_parameter("mode", "monitor").value
        # Like this the node answers with this action at every tick if the folder is damaged.
        emergency = self.declare_parameter("emergency_action", [0.0]).value
        black_box = self.declare_parameter("black_box", "black_box.jsonl").value
        self.shield = Shield.load(
            folder, mode=mode, black_box=black_box, emergency_action=emergency
        )
        self.dt = self.shield.settings.dt
        self.state: list[float] | None = None
        self.stamp: float | None = None
        self.proposed: list[float] | None = None
        self.proposed_at = float("-inf")
        self.create_subscription(
            Float64MultiArray, "~/state", self.on_state, qos_profile_sensor_data
        )
        self.create_subscription(Float64MultiArray, "~/proposed", self.on_proposed, 1)
        self.actions = self.create_publisher(Float64MultiArray, "~/action", 1)
        self.diagnostics = self.create_publisher(DiagnosticArray, "~/diagnostics", 10)
        self.create_timer(self.dt, self.tick)
        self.create_timer(1.0, self.tell)
        self.last_reason = Reason.OK
        for edit in self.shield.edited:
            self.get_logger().warning(f"the shield was edited and not sealed: {edit}")

    def now(self) -> float:
        """The node's clock in seconds; simulated time where `use_sim_time` is set."""
        return self.get_clock().now().nanoseconds * 1e-9

    def on_state(self, message: Float64MultiArray) -> None:
        """With a stamped message type, use its header's stamp: this is the time of arrival."""
        self.state, self.stamp = list(message.data), self.now()

    def on_proposed(self, message: Float64MultiArray) -> None:
        self.proposed, self.proposed_at = list(message.data), self.now()

    def tick(self) -> None:
        now = self.now()
        # A policy that has fallen silent proposes nothing.
        proposed = self.proposed if now - self.proposed_at <= 2.0 * self.dt else None
        decision = self.shield.decide(self.state, proposed, stamp=self.stamp, now=now)
        self.actions.publish(Float64MultiArray(data=decision.action.tolist()))
        self.last_reason = decision.reason

    def tell(self) -> None:
        known = {
            "mode": self.shield.mode,
            "reason": self.last_reason,
            **self.shield.statistics(),
        }
        quiet = self.last_reason is Reason.OK
        status = DiagnosticStatus(
            level=DiagnosticStatus.OK if quiet else DiagnosticStatus.WARN,
            name="shield",
            message=str(self.last_reason),
            values=[KeyValue(key=name, value=str(value)) for name, value in known.items()],
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self.diagnostics.publish(message)


def main() -> None:
    rclpy.init()
    node = ShieldNode()
    try:
        rclpy.spin(node)
    except KeyboardInterrupt:
        pass
    finally:
        node.shield.black_box.close()
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
