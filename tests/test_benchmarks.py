"""The benchmark counts right, pairs right and prints what it promises. No test measures time."""

import json
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from benchmarks import change_detection, floor, planners, shield_training, speed
from benchmarks.measure import ratio, summary, take_turns


def test_the_floor_of_the_online_step_is_counted_right() -> None:
    """1.19 GFLOP: per batch of 256, SAC and the risk learner each need about 0.59."""
    found = floor.online_step_floor((20, 6, 256, 256), 1)
    assert found.operations == pytest.approx(1.19e9, rel=0.03)


@pytest.mark.parametrize("meta", [False, True])
def test_the_compiler_removes_no_product_of_the_floor(meta: bool) -> None:
    sizes = (20, 6, 128, 16)
    found = floor.meta_iteration_floor(sizes, 5, 1) if meta else floor.online_step_floor(sizes, 1)
    # Outer products become multiplications: .2 % of the operations here; a first layer is .6 %.
    compiled = compiled_operations(found.compiled.as_text())
    assert compiled == pytest.approx(found.operations, rel=3e-3)


def compiled_operations(program: str) -> int:
    """Floating-point operations of the matrix products in a compiled program without loops."""
    total = 0
    for computation in re.split(r"\n(?=%|ENTRY)", program):
        shapes = dict(re.findall(r"%([\w.\-]+) = \w+\[([\d,]*)\]", computation))
        for out, left, axis in re.findall(
            r"= \w+\[([\d,]*)\]\S* dot\(%([\w.\-]+), .*?lhs_contracting_dims=\{(\d)\}", computation
        ):
            length = int(shapes[left].split(",")[int(axis)])
            total += 2 * math.prod(map(int, out.split(","))) * length
    return total


def test_products_count_by_shape() -> None:
    multiply = floor.Products()
    multiply(jnp.ones((3, 5)), jnp.ones((5, 7)))
    assert multiply.operations == 2 * 3 * 5 * 7


def test_backward_products_are_the_gradient_of_a_linear_network() -> None:
    multiply = floor.Products()
    weights = floor.network(jax.random.key(0), (4, 3, 2))
    x = jax.random.normal(jax.random.key(1), (5, 4))
    values = multiply.forward(x, weights)
    found, through = multiply.backward(values, values[-1], weights, parameters=True, inputs=True)

    def loss(weights: list, x: jax.Array) -> jax.Array:
        return 0.5 * jnp.sum(jnp.square(x @ weights[0] @ weights[1]))

    expected, expected_through = jax.grad(loss, argnums=(0, 1))(weights, x)
    assert jnp.allclose(found[0], expected[1], atol=1e-5)
    assert jnp.allclose(found[1], expected[0], atol=1e-5)
    assert jnp.allclose(through[-1], expected_through, atol=1e-5)


def test_second_order_products_are_a_hessian_vector_product() -> None:
    """Of half the squared output of a linear network."""
    multiply = floor.Products()
    weights = floor.network(jax.random.key(0), (4, 3, 2))
    vector = floor.network(jax.random.key(2), (4, 3, 2))
    x = jax.random.normal(jax.random.key(1), (5, 4))
    values = multiply.forward(x, weights)
    _, signals = multiply.backward(values, values[-1], weights, parameters=True, inputs=False)
    found = floor._hessian_vector_products(multiply, values, signals, weights, vector)

    def loss(weights: list) -> jax.Array:
        return 0.5 * jnp.sum(jnp.square(x @ weights[0] @ weights[1]))

    expected = jax.jvp(jax.grad(loss), (weights,), (vector,))[1]
    for one, other in zip(found, expected, strict=True):
        assert jnp.allclose(one, other, atol=1e-5)


def test_candidates_take_turns_after_a_warm_up() -> None:
    order: list[str] = []
    ticks = iter(range(100))
    seconds = take_turns(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2, lambda: next(ticks)
    )
    assert order == ["a", "b", "a", "b", "a", "b"]
    assert seconds == {"a": [1, 1], "b": [1, 1]}


def test_ratios_are_of_neighbours() -> None:
    found = ratio("x", [2.0, 20.0, 6.0], [1.0, 10.0, 2.0])
    assert (found.value, found.min, found.max, found.runs) == (2.0, 2.0, 3.0, 3)
    line = json.loads(summary("y", [1.0, 3.0, 2.0], "ms").line())
    assert line == {"name": "y", "value": 2.0, "unit": "ms", "runs": 3, "min": 1.0, "max": 3.0}


def test_the_command_prints_a_json_line_per_number(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the peers, which it names on standard error."""
    monkeypatch.setattr(speed.importlib.util, "find_spec", lambda name: None)
    speed.main(["--quick", "--only", *(name for name in speed.SECTIONS if name != "guards")])
    out, err = capsys.readouterr()
    names = {json.loads(line)["name"] for line in out.splitlines()}
    assert names >= {
        "online_step_over_floor",
        "meta_iteration_over_floor",
        "phase1_seconds",
        "navigation_steps_per_second",
        "carl_plan_ms",
        "csv_import_rows_per_second",
    }
    for peer in ("pytorch_over_online_step", "sb3_over_sac_step", "sbx_over_sac_step"):
        assert peer in err


@pytest.mark.slow
def test_every_guard_is_compared_with_the_plain_one(capsys: pytest.CaptureFixture[str]) -> None:
    """A program each to compile."""
    speed.main(["--quick", "--only", "guards"])
    names = {json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()}
    assert names >= {"meta_iteration_csc_over_plain", "online_step_sqrl_over_plain"}


@pytest.mark.slow
def test_planners_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    planners.main(["--quick", "--states", "2", "--steps", "2"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    names = {line["name"]: line["value"] for line in lines}
    assert {name.removeprefix("mini_") for name in names if name.startswith("mini_")} == {
        name.removeprefix("paper_again_") for name in names if name.startswith("paper_again_")
    }
    assert names["mini_first_action_distance"] > 0.0


def test_a_planner_is_as_good_as_itself() -> None:
    given = planners.Outcome(
        plan_cost=np.asarray([2.0, 4.0]),
        first_action=np.asarray([[0.0, 1.0], [1.0, 0.0]]),
        executed_return=np.asarray([-10.0, -30.0]),
        violated=np.asarray([False, True]),
    )
    better = planners.Outcome(
        plan_cost=np.asarray([1.0, 5.0]),
        first_action=np.asarray([[0.0, 0.5], [1.0, 0.0]]),
        executed_return=np.asarray([-5.0, -15.0]),
        violated=np.asarray([False, False]),
    )
    same = [measurement.value for measurement in planners.compared("x", given, given)]
    assert same == [0.0, 0.0, 1.0, 1.0, 1.0]
    other = [measurement.value for measurement in planners.compared("x", given, better)]
    assert other == pytest.approx([0.4, 0.25, 2.0, 1.0, 2.0])


def test_shield_trainings_go_on_with_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(
        shield_training.subprocess, "run", lambda command, check: started.append(command[3:])
    )
    (tmp_path / "shields" / "navigation2-0" / "shield").mkdir(parents=True)
    monkeypatch.setattr(shield_training, "preset_of", lambda prepared: "cpu")
    done = {"agent": "sb3_ppo", "domain": "navigation2", "seed": 0, "shield": "none"}
    done |= {"preset": "cpu", "hidden": 256}
    done["steps"] = shield_training.steps_of("sb3_ppo", "navigation2")
    (tmp_path / "training.jsonl").write_text(json.dumps(done) + "\n")
    flags = ["all", "--seeds", "0,1", "--agents", "sb3_ppo", "--domains", "navigation2"]
    shield_training.main([*flags, "--out", str(tmp_path), "--shields", str(tmp_path / "shields")])
    steps = [(command[0], command[command.index("--seed") + 1]) for command in started]
    assert steps == [("train", "0"), ("prepare", "1"), ("train", "1"), ("train", "1")]
    assert started[0][started[0].index("--shield") + 1] == "online"
    shields = ["--shields", str(tmp_path / "shields")]
    with pytest.raises(SystemExit, match="chose no settings for navigation2; only for cartpole"):
        shield_training.main(["prepare", "navigation2", "--settings", "held_out"])
    started.clear()
    cartpole = ["all", "--seeds", "0", "--agents", "sb3_sac", "--domains", "cartpole", *shields]
    shield_training.main([*cartpole, "--out", str(tmp_path), "--settings", "held_out"])
    settings = [command[command.index("--settings") + 1] for command in started]
    assert settings == ["held_out"] * 3
    with pytest.raises(SystemExit, match="prepared with --preset cpu"):
        shield_training.main(
            [
                *flags,
                "--preset",
                "quick",
                "--out",
                str(tmp_path),
                "--shields",
                str(tmp_path / "shields"),
            ]
        )


def test_delays_and_false_alarms_are_counted() -> None:
    rng = np.random.default_rng(0)
    fleet = [rng.normal(size=5_000) for _ in range(8)]
    healthy = [rng.normal(size=2_000), np.concatenate([rng.normal(size=1_000), np.full(30, 3.0)])]
    changed = [(np.concatenate([rng.normal(size=500), np.full(100, rise)]), 500) for rise in (3, 0)]
    detector = change_detection.CUSUM(reference=1.0)
    line = change_detection.judged(detector, 1.0, fleet, healthy, {"x": changed}, 0.1)
    assert line["alarms"] == [0, 1]
    assert line["fleet_h"] == pytest.approx(8 * 5_000 * 0.1 / 3600, abs=1e-3)
    # Two a row: the threshold is crossed after so many.
    rows = int(line["threshold"] / 2.0) + 1
    assert line["x"] == {"changes": 2, "delay_s": None, "within_2s": 0.5, "found": 0.5}
    again = change_detection.judged(detector, 1.0, fleet, healthy, {"x": changed[:1]}, 0.1)
    assert again["x"]["delay_s"] == pytest.approx(0.1 * rows, abs=0.11)
    assert "refused" in change_detection.judged(detector, 1e-6, fleet, healthy, {}, 0.1)
