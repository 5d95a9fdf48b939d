"""`python -m benchmarks.speed`: a JSON line per number; ratios are paired and medians.

Names: docs/speed.md. `--quick` uses tiny sizes, to see that it works; its numbers mean nothing.
"""

import argparse
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from benchmarks import measure
from benchmarks.measure import Measurement, ratio, summary, take_turns

if TYPE_CHECKING:
    from benchmarks.ours import Size

PAPER_ITERATIONS = 10_000

SECTIONS = ("online", "meta", "guards", "navigation", "robots", "carl", "imports")
"""Functions of this module, in the order in which they measure."""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Flags."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--threads", type=int, default=None, help="cores to use; default: all")
    parser.add_argument("--runs", type=int, default=9, help="repetitions of each measurement")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="time the processor and not the wall: for a busy machine, with --threads 1",
    )
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="sections to measure"
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes; numbers mean nothing")
    return parser.parse_args(arguments)


def use_cores(count: int | None) -> None:
    """Pins this process; must come before JAX and PyTorch start their threads."""
    if count is not None and hasattr(os, "sched_setaffinity"):
        available = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, set(available[:count]))
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(count or len(os.sched_getaffinity(0)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    flags = parse(arguments)
    use_cores(flags.threads)
    if flags.cpu_time:
        measure.CLOCK = time.process_time
    from benchmarks.ours import Size

    tiny = Size(obs=3, action=2, hidden=8, batch=8, replay=400)
    size = tiny if flags.quick else Size()
    runs = 2 if flags.quick else flags.runs
    steps = 2 if flags.quick else 20
    for section in flags.only:
        for measurement in globals()[section](size, runs, steps):
            print(measurement.line(), flush=True)


def _peer(module: str, *names: str) -> bool:
    """Whether a peer can be measured; says so on standard error where it cannot."""
    if importlib.util.find_spec(module) is not None:
        return True
    skipped = ", ".join(names)
    print(f"{skipped}: {module} is not installed (pip install 'safemesa[bench]')", file=sys.stderr)
    return False


def online(size: "Size", runs: int, steps: int) -> list[Measurement]:
    """The online step over its floor and against PyTorch; SAC alone against SB3 and SBX."""
    from benchmarks import floor, ours

    run_floor = floor.online_step_floor(size.products, steps)
    candidates: dict[str, Callable[[], None]] = {
        "ours": ours.online_step(size, steps),
        "floor": run_floor,
        "sac": ours.online_step(size, steps, safety=False),
    }
    if _peer("torch", "pytorch_over_online_step"):
        from benchmarks.peer_pytorch import OnlineStep

        peer = OnlineStep(*size.products)
        candidates["pytorch"] = lambda: peer.run(steps)
    for module, name in (("stable_baselines3", "sb3"), ("sbx", "sbx")):
        if _peer(module, f"{name}_over_sac_step"):
            from benchmarks.peer_sb3 import sac_steps

            candidates[name] = sac_steps(name, *size.products, steps)
    seconds = take_turns(candidates, runs)
    found = [
        summary("online_step_ms", [1e3 * s / steps for s in seconds["ours"]], "ms"),
        summary("sac_step_ms", [1e3 * s / steps for s in seconds["sac"]], "ms"),
        summary(
            "floor_gflop_per_second",
            [run_floor.operations * steps / s / 1e9 for s in seconds["floor"]],
            "GFLOP/s",
        ),
        ratio("online_step_over_floor", seconds["ours"], seconds["floor"]),
    ]
    for name, against in (("pytorch", "ours"), ("sb3", "sac"), ("sbx", "sac")):
        if name in seconds:
            title = "online_step" if against == "ours" else "sac_step"
            found.append(ratio(f"{name}_over_{title}", seconds[name], seconds[against]))
    return found


def meta(size: "Size", runs: int, steps: int) -> list[Measurement]:
    """A meta-iteration over its floor and against torch.func; Phase 1 of the paper."""
    from benchmarks import floor, ours

    steps = max(2, steps // 2)
    candidates: dict[str, Callable[[], None]] = {
        "ours": ours.meta_iterations(size, steps),
        "floor": floor.meta_iteration_floor(size.products, 5, steps),
        "paper": ours.paper_iterations(steps),
    }
    if _peer("torch", "pytorch_over_meta_iteration"):
        from benchmarks.peer_pytorch import meta_iterations

        candidates["pytorch"] = meta_iterations(*size.products, steps)
    seconds = take_turns(candidates, runs)
    found = [
        summary("meta_iteration_ms", [1e3 * s / steps for s in seconds["ours"]], "ms"),
        ratio("meta_iteration_over_floor", seconds["ours"], seconds["floor"]),
        summary("phase1_seconds", [PAPER_ITERATIONS * s / steps for s in seconds["paper"]], "s"),
    ]
    if "pytorch" in seconds:
        found.append(ratio("pytorch_over_meta_iteration", seconds["pytorch"], seconds["ours"]))
    return found


def guards(size: "Size", runs: int, steps: int) -> list[Measurement]:
    """Every guard that asks the critic over Recovery RL, whose losses are the plain ones."""
    from benchmarks import ours
    from safemesa.guards import guards as known

    names = [name for name in known.names() if known[name].uses_risk]
    iterations = max(2, steps // 2)
    phase1 = {name: ours.meta_iterations(size, iterations, guard=name) for name in names}
    # SQRL's own loss; every guard may be given it.
    phase1["sqrl_bce"] = ours.meta_iterations(size, iterations, guard="sqrl", loss="bce")
    phase3 = {name: ours.online_step(size, steps, guard=name) for name in names}
    found = []
    for title, candidates in (("meta_iteration", phase1), ("online_step", phase3)):
        seconds = take_turns(candidates, runs)
        plain = seconds.pop("recovery_rl")
        found += [ratio(f"{title}_{name}_over_plain", s, plain) for name, s in seconds.items()]
    return found


def navigation(size: "Size", runs: int, steps: int) -> list[Measurement]:
    """Environment steps per second of Navigation 2, compiled, 64 environments at once."""
    from benchmarks import ours

    del size
    count, length = 64, 100 * steps
    seconds = take_turns({"navigation": ours.navigation_steps(count, length)}, runs)
    rates = [count * length / s for s in seconds["navigation"]]
    return [summary("navigation_steps_per_second", rates, "steps/s")]


def robots(size: "Size", runs: int, steps: int) -> list[Measurement]:
    """HalfCheetah's step over raw MuJoCo; milliseconds that the host loop adds to each step.

    The overhead is what is outside of the compiled step and the simulator. What the compiled step
    costs more by itself than in a compiled loop is shown apart.
    """
    if not _peer("mujoco", "halfcheetah_step_over_raw", "host_overhead_ms"):
        return []
    from benchmarks.robots import halfcheetah_steps, host_loop

    ours, raw = halfcheetah_steps(50 * steps)
    seconds = take_turns({"ours": ours, "raw": raw}, runs)
    count = 10 * steps
    parts = take_turns(host_loop(size, count), runs)

    def difference(whole: str, *others: str) -> list[float]:
        """Milliseconds per step, run by run."""
        columns = zip(parts[whole], *(parts[other] for other in others), strict=True)
        return [1e3 * (first - sum(rest)) / count for first, *rest in columns]

    return [
        ratio("halfcheetah_step_over_raw", seconds["ours"], seconds["raw"]),
        summary("host_step_ms", [1e3 * one / count for one in parts["loop"]], "ms"),
        summary("host_overhead_ms", difference("loop", "calls", "environment"), "ms"),
        summary("host_call_over_loop_ms", difference("calls", "updates"), "ms"),
    ]


def carl(size: "Size", runs: int, steps: int) -> list[Measurement]:
    """One plan of CARL's smallest planner on Navigation."""
    from benchmarks import ours

    del size
    seconds = take_turns({"plans": ours.carl_plans(steps)}, runs)
    return [summary("carl_plan_ms", [1e3 * s / steps for s in seconds["plans"]], "ms")]


def imports(size: "Size", runs: int, steps: int) -> list[Measurement]:
    """Rows per second: whole imports of CSV and of bags, and readers, which only read them."""
    from benchmarks.imports import bag_import, csv_import

    del size
    found = []
    for form, candidates, rows in (
        ("csv", csv_import, 10_000 * steps),
        ("bag", bag_import, 1_000 * steps),
    ):
        seconds = take_turns(candidates(rows), runs)
        found += [
            summary(f"{form}_{name}_rows_per_second", [rows / s for s in taken], "rows/s")
            for name, taken in seconds.items()
        ]
    return found


if __name__ == "__main__":
    main()
