"""Verdicts on the paper's claims, from runs whose numbers are chosen."""

import json
from pathlib import Path

import pytest

from safemesa.cli.main import main
from safemesa.experiments.arms import configure
from safemesa.experiments.measures.run_contents import late_return
from safemesa.experiments.paper.claims import CLAIMS
from safemesa.experiments.paper.verdicts import Finding, findings
from safemesa.experiments.runs.run_records import find_runs
from safemesa.phases.config import config_to_json

WALL = {"collect": 0.0, "meta_train": 0.0, "adapt": 0.0, "deploy": 0.0}


def write_run(
    root: Path,
    arm: str,
    domain: str,
    seed: int,
    *,
    violations: int = 0,
    successes: int | None = None,
    value: float = 0.0,
    test_transitions: int | None = None,
    bias: tuple[float, ...] = (0.0,) * 3,
    **changes: int | float,
) -> None:
    """A finished run folder of 100 episodes with these totals; `changes` name guard or deploy."""
    settings = config_to_json(configure(arm, domain, "cpu")) | {"seed": seed}
    for name, one in changes.items():
        section = "guard_settings" if name in settings["guard_settings"] else "deploy"
        settings[section][name] = one
    if test_transitions is not None:
        settings["data"]["test_transitions"] = test_transitions
    folder = root / "-".join([domain, arm, str(seed), str(test_transitions), *changes])
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"config": settings}))
    summary = {
        "arm": arm,
        "domain": domain,
        "preset": "cpu",
        "seed": seed,
        "episodes": 100,
        "env_steps": 10_000,
        "violations": violations,
        "violations_under_recovery": 0,
        "successes": successes,
        "return_mean": value,
        "return_last_100": value,
        "interventions": 0,
        "wall_s": WALL,
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    lines = [
        {
            "episode": number,
            "env_steps": 100 * (number + 1),
            "return": value,
            "length": 100,
            "violation": int(number < violations),
            "success": None if successes is None else int(number < successes),
            "interventions": 0,
            "violation_under_recovery": 0,
            "cumulative_violations": min(number + 1, violations),
            "risk_bias": bias[number * len(bias) // 100],
            "wall_s": 0.0,
        }
        for number in range(100)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def found(root: Path, **options) -> dict[str, Finding]:
    return {one.claim.id: one for one in findings(find_runs([root]), "cpu", **options)}


def test_identifiers_are_unique_and_name_known_domains() -> None:
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)
    for claim in CLAIMS:
        for arm in claim.arms:
            if not arm.startswith("carl"):
                configure(arm, claim.domain, "paper")


def test_violations_are_compared_seed_by_seed(tmp_path: Path) -> None:
    for seed in range(6):
        write_run(tmp_path, "mesa", "halfcheetah", seed, violations=10 + seed, value=900.0)
        write_run(tmp_path, "multitask", "halfcheetah", seed, violations=40 + seed, value=1000.0)
        write_run(tmp_path, "rrl", "halfcheetah", seed, violations=60 + seed, value=500.0)
        write_run(tmp_path, "unconstrained", "halfcheetah", seed, violations=99, value=1200.0)
    one = found(tmp_path)["halfcheetah_violations_halved"]
    assert (one.verdict, one.comparison, one.n) == ("holds", "multitask", 6)
    assert (one.effect, one.low, one.high) == (-30.0, -30.0, -30.0)
    assert one.settled
    fewer = found(tmp_path)["halfcheetah_fewer"]
    assert (fewer.verdict, fewer.settled) == ("holds", True)
    # 900 is less than four fifths of 1200.
    value = found(tmp_path)["halfcheetah_return"]
    assert (value.verdict, value.comparison, value.settled) == (
        "does not hold",
        "unconstrained",
        True,
    )


def test_a_share_of_a_negative_return_is_asked_for_on_the_safe_side(tmp_path: Path) -> None:
    """Four fifths of -100 would be -80: more than the best arm has."""
    for seed in range(3):
        for arm in ("mesa", "multitask", "rrl", "unconstrained"):
            write_run(tmp_path, arm, "cartpole", seed, value=-110.0 if arm == "mesa" else -100.0)
    assert found(tmp_path)["cartpole_comparable"].verdict == "holds"


def test_shares_of_episodes(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(
            tmp_path, "unconstrained", "navigation1", seed, violations=90 + seed, successes=30
        )
    results = found(tmp_path)
    violates, fails = (
        results[f"navigation1_unconstrained_{kind}"] for kind in ("violates", "fails")
    )
    assert (violates.verdict, violates.effect) == ("holds", pytest.approx(0.91))
    assert (fails.verdict, fails.effect) == ("does not hold", pytest.approx(0.3))
    assert results["navigation2_unconstrained_fails"].verdict == "not measured"


def test_the_ablation_of_the_test_log(tmp_path: Path) -> None:
    for seed in range(3):
        for size, violations in ((10_000, 40), (2_500, 44), (1_250, 41), (625, 80)):
            write_run(
                tmp_path,
                "mesa",
                "halfcheetah",
                seed,
                violations=violations,
                test_transitions=size,
            )
    results = found(tmp_path)
    assert results["test_size_quarter"].verdict == "holds"
    assert results["test_size_eighth"].verdict == "does not hold"
    assert results["test_size_sixteenth"].verdict == "holds"
    assert results["halfcheetah_fewer"].verdict == "not measured"


def test_arms_that_a_claim_does_not_name_do_not_touch_it(tmp_path: Path) -> None:
    """The oracle's test log is as large as a training log, and is no larger log of MESA's."""
    write_run(tmp_path, "mesa", "navigation1", 0, violations=3)
    write_run(tmp_path, "multitask", "navigation1", 0, violations=5)
    write_run(tmp_path, "oracle", "navigation1", 0, test_transitions=10_000)
    assert found(tmp_path)["navigation1_fewer_than_multitask"].verdict == "holds"


def test_pessimism_at_the_start_and_its_fall_are_two_claims(tmp_path: Path) -> None:
    write_run(tmp_path, "mesa", "navigation1", 0, bias=(0.3, 0.2, 0.1))
    write_run(tmp_path, "mesa", "halfcheetah", 0, bias=(-0.3, -0.2, -0.1))
    results = found(tmp_path)
    effects = {name: results[name].effect for name in results if "pessimis" in name}
    assert effects == {
        "navigation1_starts_pessimistic": pytest.approx(0.3),
        "navigation1_pessimism_falls": pytest.approx(-0.2),
        "halfcheetah_starts_pessimistic": pytest.approx(-0.3),
        "halfcheetah_pessimism_falls": pytest.approx(0.2),
    }
    for name in effects:
        expected = "holds" if name.startswith("navigation1") else "does not hold"
        assert results[name].verdict == expected


def test_each_use_of_carl_is_held_against_the_other_methods(tmp_path: Path) -> None:
    """Not against each other: the paper says that both are best."""
    goals = {"carl": 95, "carl_offline": 80, "mesa": 70, "multitask": 60, "rrl": 90}
    for arm, successes in goals.items():
        write_run(tmp_path, arm, "navigation1", 0, successes=successes)
    results = found(tmp_path)
    assert results["navigation1_carl_best"].verdict == "holds"
    offline = results["navigation1_carl_offline_best"]
    assert (offline.verdict, offline.comparison) == ("does not hold", "rrl")


def test_speed_of_adaptation(tmp_path: Path) -> None:
    """In the second of three seeds it is the other way round."""
    write_run(tmp_path, "mesa", "maze", 0)
    quick, slow = (0.3, 0.109, 0.1), (0.3, 0.2, 0.1)
    rows = [
        {"domain": "maze", "preset": "cpu", "arm": arm, "seed": seed, "step": step, "brier": brier}
        for arm, seeds in (("mesa", (quick, slow, quick)), ("multitask", (slow, quick, slow)))
        for seed, scores in enumerate(seeds)
        for step, brier in zip((0, 1, 10), scores, strict=True)
    ]
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps({"rows": rows}))
    one = found(tmp_path, calibration=file)["maze_adapts_faster"]
    assert (one.verdict, one.n, one.settled) == ("holds", 3, None)
    assert one.means == {"mesa": pytest.approx(4.0), "multitask": pytest.approx(7.0)}
    assert (one.effect, one.low, one.high) == (pytest.approx(-3.0), -9.0, 9.0)


def test_an_arm_that_never_adapts_is_not_the_faster_one(tmp_path: Path) -> None:
    """Its error is near its own lowest from the beginning."""
    write_run(tmp_path, "mesa", "maze", 0)
    rows = [
        {"domain": "maze", "preset": "cpu", "arm": arm, "seed": 0, "step": step, "brier": brier}
        for arm, scores in (("mesa", (0.2, 0.2, 0.2)), ("multitask", (0.2, 0.05, 0.05)))
        for step, brier in zip((0, 1, 10), scores, strict=True)
    ]
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps({"rows": rows}))
    one = found(tmp_path, calibration=file)["maze_adapts_faster"]
    assert (one.verdict, one.means) == ("does not hold", {"mesa": 10.0, "multitask": 1.0})


def test_few_seeds_settle_nothing(tmp_path: Path) -> None:
    for seed in range(5):
        write_run(tmp_path, "mesa", "navigation2", seed, violations=1)
        write_run(tmp_path, "multitask", "navigation2", seed, violations=9)
    one = found(tmp_path)["navigation2_fewer_than_multitask"]
    assert (one.verdict, one.n, one.settled) == ("holds", 5, None)


def test_arms_are_compared_over_the_seeds_that_all_of_them_have(tmp_path: Path) -> None:
    """Multi-Task is best on these, and worst over all of its own."""
    for seed in range(2):
        write_run(tmp_path, "mesa", "halfcheetah", seed, violations=5)
    for seed in range(3):
        write_run(tmp_path, "multitask", "halfcheetah", seed, violations=100 if seed == 2 else 4)
        for arm in ("rrl", "unconstrained"):
            write_run(tmp_path, arm, "halfcheetah", seed, violations=10)
    one = found(tmp_path)["halfcheetah_fewer"]
    assert (one.verdict, one.comparison, one.effect, one.n) == ("does not hold", "multitask", 1, 2)
    assert one.means == {"mesa": 5, "multitask": 4, "rrl": 10, "unconstrained": 10}


def test_a_claim_is_settled_against_every_comparison_or_not(tmp_path: Path) -> None:
    """RRL has more violations in the mean, and in five seeds of eight."""
    for seed in range(8):
        write_run(tmp_path, "mesa", "halfcheetah", seed, violations=10)
        write_run(tmp_path, "multitask", "halfcheetah", seed, violations=20)
        write_run(tmp_path, "unconstrained", "halfcheetah", seed, violations=90)
        write_run(tmp_path, "rrl", "halfcheetah", seed, violations=50 if seed < 5 else 5)
    one = found(tmp_path)["halfcheetah_fewer"]
    assert (one.verdict, one.comparison, one.settled) == ("holds", "multitask", False)


def test_runs_of_other_settings_or_lengths_are_not_mixed(tmp_path: Path) -> None:
    for arm, violations in (("mesa", 1), ("multitask", 3), ("rrl", 9)):
        write_run(tmp_path, arm, "navigation1", 0, violations=violations)
    write_run(tmp_path, "mesa", "navigation1", 0, violations=50, risk_limit=0.9)
    one = found(tmp_path)["navigation1_fewer_than_multitask"]
    assert one.verdict == "not measured"
    assert "guard_settings.risk_limit=0.9" in one.missing
    other = tmp_path / "lengths"
    write_run(other, "mesa", "navigation1", 0, violations=1, episodes=20)
    write_run(other, "multitask", "navigation1", 0, violations=3)
    one = found(other)["navigation1_fewer_than_multitask"]
    assert one.missing == "runs end after different times: mesa 20 episodes, multitask 100 episodes"


def test_nothing_against_nothing_is_no_measurement(tmp_path: Path) -> None:
    """No arm violates, none reaches a goal, and the risk is never off."""
    for arm in ("mesa", "multitask", "rrl", "carl"):
        write_run(tmp_path, arm, "navigation1", 0, successes=0)
    for size in (10_000, 2_500, 1_250, 625):
        write_run(tmp_path, "mesa", "halfcheetah", 0, test_transitions=size)
    results = found(tmp_path)
    for name in ("navigation1_carl_best", "navigation1_success", "test_size_eighth"):
        assert results[name].verdict == "not measured"
        assert "no arm has any" in results[name].missing
    for name in ("navigation1_starts_pessimistic", "navigation1_pessimism_falls"):
        assert results[name].verdict == "does not hold"


def test_late_return_is_that_of_the_last_third_of_the_steps() -> None:
    ends = (10, 60, 65, 90, 100)
    lines = [{"env_steps": end, "return": float(end)} for end in ends]
    assert late_return(lines) == pytest.approx(95.0)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--preset", "cpuu"], "no run of the preset 'cpuu'. Its runs are of cpu"),
        (["--preset", "cpu", "--calibration", "none.json"], "none.json is no file"),
    ],
)
def test_misspelt_flags_overwrite_nothing(
    tmp_path: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    write_run(tmp_path, "mesa", "navigation1", 0, violations=3, successes=90)
    assert main(["paper", "claims", "--out", str(tmp_path), *flags]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "claims.json").exists()


def test_the_command_exits_0_and_writes_every_claim(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_run(tmp_path, "mesa", "navigation1", 0, violations=3, successes=90)
    assert main(["paper", "claims", "--out", str(tmp_path), "--preset", "cpu"]) == 0
    record = json.loads((tmp_path / "claims.json").read_text())
    assert [one["id"] for one in record["findings"]] == [claim.id for claim in CLAIMS]
    table = (tmp_path / "claims.md").read_text()
    assert all(f"`{claim.id}`" in table for claim in CLAIMS)
    assert main(["paper", "nothing"]) == 2
    capsys.readouterr()


def test_claims_of_several_folders_come_from_the_first_that_measured_them(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, violations in ((first, 3), (second, 30)):
        write_run(folder, "mesa", "navigation1", 0, violations=violations)
    write_run(first, "multitask", "navigation1", 0, violations=5)
    write_run(second, "rrl", "navigation1", 0, violations=7)
    for folder in (first, second):
        assert main(["paper", "claims", "--out", str(folder), "--preset", "cpu"]) == 0
    capsys.readouterr()
    assert main(["paper", "verdicts", str(first), str(second)]) == 0
    printed = capsys.readouterr().out
    rows = {claim.id: line for line in printed.splitlines() for claim in CLAIMS if claim.id in line}
    assert set(rows) == {claim.id for claim in CLAIMS}
    assert (
        "MESA 3, Multi-Task 5 | -2 against Multi-Task | first, cpu | 1 | holds"
        in (rows["navigation1_fewer_than_multitask"])
    )
    assert (
        "MESA 30, RRL 7 | 23 against RRL | second, cpu | 1 | does not hold"
        in (rows["navigation1_fewer_than_rrl"])
    )
    assert "not measured" in rows["ant_fewer"]


def test_claims_that_are_missing_or_of_another_version_say_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["paper", "verdicts", str(tmp_path)]) == 2
    assert f"safemesa paper claims --out {tmp_path}" in capsys.readouterr().err
    (tmp_path / "claims.json").write_text('{"command": "", "findings": [{"id": "gone"}]}')
    assert main(["paper", "verdicts", str(tmp_path)]) == 2
    assert "'gone'" in capsys.readouterr().err
    write_run(tmp_path, "mesa", "navigation1", 0, violations=3)
    assert main(["paper", "claims", "--out", str(tmp_path), "--preset", "cpu"]) == 0
    record = json.loads((tmp_path / "claims.json").read_text())
    record["findings"][0]["threshold"] = 0.7
    (tmp_path / "claims.json").write_text(json.dumps(record))
    capsys.readouterr()
    assert main(["paper", "verdicts", str(tmp_path)]) == 2
    assert "another version" in capsys.readouterr().err
    assert main(["paper", "verdicts"]) == 2
    capsys.readouterr()
