"""The robots of this yardstick, by name."""

from benchmarks.own_logs.balancer import BALANCER
from benchmarks.own_logs.cart import CART
from benchmarks.own_logs.crane import CRANE
from benchmarks.own_logs.drone import DRONE
from benchmarks.own_logs.oven import OVEN
from benchmarks.own_logs.robot import Kind

KINDS: dict[str, Kind] = {kind.name: kind for kind in (CART, DRONE, OVEN, CRANE, BALANCER)}
