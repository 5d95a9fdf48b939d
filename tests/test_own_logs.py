"""The yardstick of shields from own logs: its physics, its logs, its pairing and its verdict."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks.own_logs import __main__ as command_line, documented_path, run
from benchmarks.own_logs.episodes import drive
from benchmarks.own_logs.kinds import KINDS
from benchmarks.own_logs.measure import Counts, measure
from benchmarks.own_logs.robot import CARELESS, Kind
from benchmarks.own_logs.table import Bounds, bounds_of, meets, summary_of, table_of
from benchmarks.own_logs.write_logs import header_of, map_of, write_logs

from safemesa.cli.main import main
from safemesa.datasets.doctor.examine import examine
from safemesa.datasets.importers.import_map import read_map
from safemesa.datasets.offline_tasks import OfflineTasks

EACH = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


@EACH
def test_without_a_shield_most_episodes_of_the_new_robot_violate(kind: Kind) -> None:
    found = measure(kind, None, episodes=50)
    assert 0.7 * 50 <= found.violations <= 0.98 * 50
    assert found.successes > 0
    assert found.overridden_share == 0.0


@EACH
def test_the_hand_rule_keeps_the_new_robot_safe_at_work(kind: Kind) -> None:
    found = measure(kind, kind.rule(kind.new), episodes=50)
    assert found.violations == 0
    assert found.successes >= 47
    assert 0.05 < found.overridden_share < 0.35


@EACH
def test_the_hand_rule_knows_every_robot_of_the_fleet(kind: Kind) -> None:
    for robot in kind.fleet:
        bare = measure(kind, None, robot=robot, episodes=10)
        ruled = measure(kind, kind.rule(kind.parameters(robot)), robot=robot, episodes=10)
        assert ruled.violations == 0
        assert ruled.successes >= 9
        assert bare.violations >= 3


@EACH
def test_the_last_step_decides_nothing(kind: Kind) -> None:
    """Another action in the last step before a violation hardly ever prevents it."""
    machine, operator = kind.machine(kind.new), kind.operator()
    rule, saved, violated = kind.rule(kind.new), 0, 0
    for number in range(20):
        seed = (5, number)
        bare = drive(kind, machine, operator, CARELESS, seed)
        if not bare.violated:
            continue
        violated += 1
        left = bare.steps - 1

        def late(obs: np.ndarray, action: np.ndarray) -> np.ndarray:
            nonlocal left
            left -= 1
            return action if left >= 0 else rule(obs, action)

        saved += drive(kind, machine, operator, CARELESS, seed, guard=late).steps > bare.steps
    assert violated >= 12
    assert saved <= 0.35 * violated


def test_the_cart_is_that_of_the_first_yardstick() -> None:
    """Sensor noise, which that one had not, changes none of its numbers."""
    cart = KINDS["cart"]
    assert measure(cart, None)[:3] == (96, 4, 100)
    found = measure(cart, cart.rule(cart.new))
    assert found[:3] == (0, 100, 100)
    assert found.overridden_share == pytest.approx(0.1877, abs=1e-3)


@EACH
def test_episodes_of_a_seed_are_paired(kind: Kind) -> None:
    """With and without a guard: same start, same first proposal; and again from run to run."""
    machine, operator = kind.machine(kind.new), kind.operator()
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def watch(obs: np.ndarray, action: np.ndarray) -> np.ndarray:
        seen.append((obs, action))
        return np.array([command.high for command in kind.commands])

    bare: list = []
    for number in range(3):
        bare.clear()
        seen.clear()
        drive(kind, machine, operator, CARELESS, (7, number), record=bare.append)
        drive(kind, machine, operator, CARELESS, (7, number), guard=watch)
        assert np.array_equal(bare[0].obs, seen[0][0])
        assert np.array_equal(bare[0].action, seen[0][1])
    assert measure(kind, None, episodes=5) == measure(kind, None, episodes=5)


def small_logs(kind: Kind, folder: Path, log_seed: int) -> dict[str, bytes]:
    write_logs(kind, folder, log_seed, fleet_episodes=6, new_episodes=6)
    files = sorted((folder / "csv").rglob("*.csv"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_logs_depend_on_the_seed_of_the_new_robot_alone(tmp_path: Path) -> None:
    kind = KINDS["drone"]
    first, again, other = (
        small_logs(kind, tmp_path / name, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == again
    changed = {path for path in first if first[path] != other[path]}
    assert changed == {path for path in first if kind.new_name in path}
    assert len(changed) == 3


@pytest.fixture(scope="module", params=KINDS)
def written(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Kind, Path]:
    kind, folder = KINDS[request.param], tmp_path_factory.mktemp("logs")
    small_logs(kind, folder, 0)
    return kind, folder


def test_logs_have_no_defects(written: tuple[Kind, Path]) -> None:
    _, folder = written
    found = examine([folder / "csv"], read_map(folder / "map.toml"))
    assert [one for one in found.findings if one.defect.level == "error"] == []


def test_logs_are_imported_in_the_units_of_the_robot(tmp_path: Path) -> None:
    kind = KINDS["oven"]
    small_logs(kind, tmp_path, 0)
    arguments = [str(tmp_path / "csv"), "--map", str(tmp_path / "map.toml")]
    assert main(["data", "import", *arguments, "--out", str(tmp_path / "data")]) == 0
    data = OfflineTasks.load(tmp_path / "data")
    assert len(data.train) == 6
    assert data.spaces.dt == kind.dt
    assert data.spaces.obs_names == tuple(signal.name for signal in kind.signals)
    assert data.test is not None
    air = data.test.columns["obs"][:, 0]
    assert 25.0 < air.min() < air.max() < 95.0


def test_an_episode_ends_at_its_violation(written: tuple[Kind, Path]) -> None:
    kind, folder = written
    alarms, run_column = 0, kind.episode_column
    for path in (folder / "csv").rglob("*.csv"):
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == header_of(kind)
        for row, following in zip(rows, [*rows[1:], None], strict=True):
            if row[kind.alarm] == "1":
                alarms += 1
                assert following is None or following[run_column] != row[run_column]
    assert alarms > 6
    assert f'test = "{kind.new_name}"' in map_of(kind)


def record(robot: str, arm: str, violations: int, successes: int, **more: object) -> dict:
    nothing = dict.fromkeys(("meta_seed", "log_seed", "horizon", "preset"))
    counts = {"violations": violations, "successes": successes, "episodes": 100}
    return {"robot": robot, "arm": arm, **nothing, **counts, "overridden_share": 0.1, **more}


def shield(robot: str, seed: int, log: int, violations: int, successes: int) -> dict:
    one = {"meta_seed": seed, "log_seed": log, "horizon": "none"}
    return record(robot, "shield", violations, successes, **one)


def test_a_shield_must_be_safe_and_useful() -> None:
    none, rule = record("oven", "none", 90, 10), record("oven", "hand rule", 0, 100)
    bounds = bounds_of("oven", none, rule)
    assert bounds == pytest.approx(Bounds(0.09, 0.9))
    assert meets(shield("oven", 0, 0, 9, 90), bounds)
    assert not meets(shield("oven", 0, 0, 10, 90), bounds)
    assert not meets(shield("oven", 0, 0, 9, 89), bounds)
    # The cart's were set beforehand, and are stricter.
    strict = bounds_of("cart", record("cart", "none", 96, 4), record("cart", "hand rule", 0, 100))
    assert meets(shield("cart", 0, 0, 5, 90), strict)
    assert not meets(shield("cart", 0, 0, 6, 94), strict)


def test_the_table_counts_what_is_enough() -> None:
    records = [
        record("drone", "none", 91, 9),
        record("drone", "hand rule", 0, 96),
        shield("drone", 1, 0, 9, 88),
        shield("drone", 0, 1, 10, 90),
        shield("drone", 0, 0, 0, 100),
        shield("drone", 1, 1, 2, 86),
    ]
    lines = table_of(records).splitlines()
    assert len(lines) == 5
    cells = [cell.strip() for cell in lines[3].split("|")[1:-1]]
    assert cells[:5] == ["drone", "shield", "none", "default", "4"]
    assert cells[5:8] == ["5.2 (0 to 10)", "91.0 (86 to 100)", "10 %"]
    # 9 of 91 is less than a tenth, 10 is more; nine tenths of 96 are 86.4.
    assert cells[8:] == ["2 of 4", "0/100, 10/90; 9/88, 2/86"]
    assert "2 of 4 combinations" in summary_of(records)


def test_a_run_goes_on_with_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each verb runs once for what it makes, with the flags that were chosen."""
    calls: list[list[str]] = []

    def pretend(*arguments: str | Path) -> None:
        words = [str(argument) for argument in arguments]
        calls.append(words)
        out = Path(words[words.index("--out") + 1])
        out.mkdir(parents=True)
        manifest = {
            "shield": {"risk": {"limit": 0.3}},
            "provenance": {"gamma_risk": 0.8},
            "log": {"violations": 16},
        }
        (out / "manifest.json").write_text(json.dumps(manifest))

    monkeypatch.setattr(documented_path, "safemesa", pretend)
    monkeypatch.setattr(documented_path, "write_logs", lambda *_: None)
    monkeypatch.setattr(run, "shield_guard", lambda folder: folder)
    monkeypatch.setattr(run, "measure", lambda kind, guard: Counts(1, 99, 100, 0.1))
    places = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    choice = ["--robots", "drone", "--seeds", "0-1", "--horizon", "stated", "--preset", "quick"]
    command_line.main(["run", *choice, "--logs", "0", *places])
    verbs = [call[0] for call in calls]
    assert verbs == ["data", "meta-train", "adapt", "shield", "meta-train", "adapt", "shield"]
    prior = calls[1]
    assert prior[prior.index("--seed") :] == [
        "--seed",
        "0",
        "--risk.horizon",
        "1.5",
        "--preset",
        "quick",
    ]
    calls.clear()
    command_line.main(["run", *choice, "--logs", "0-1", *places])
    assert [call[0] for call in calls] == ["data", "adapt", "shield", "adapt", "shield"]
    records = run.read_records(tmp_path / "out" / "results.jsonl")
    assert len(records) == 2 + 2 * 2
    assert records[2]["risk_limit"] == 0.3
    assert {"wall_s", "git_commit", "command", "gamma_risk", "log_violations"} <= set(records[2])
