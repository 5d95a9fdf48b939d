"""Headroom: known answers on probes and hand-made episodes, files, and the command."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_config

from safemesa.cli.main import main
from safemesa.core.errors import ConfigurationError, DatasetError
from safemesa.domains.perturb import PerturbedTasks
from safemesa.domains.probe_base import AbstractProbe
from safemesa.domains.probes import ACTION, TASK
from safemesa.domains.registry import domain as find_domain
from safemesa.experiments.headroom.critic_scores import (
    SAFE,
    critic_scores,
    escapes,
    first_violations,
    longest_warning,
    warning_steps,
)
from safemesa.experiments.headroom.headroom_tables import (
    headroom_markdown,
    page_tables,
    summary_table,
)
from safemesa.experiments.headroom.measure_headroom import (
    DEPLOYED,
    HeadroomFiles,
    Workplace,
    asked_log,
    configurations,
    measure,
    oracles,
    trained_critics,
)
from safemesa.experiments.headroom.takeovers import rescues
from safemesa.experiments.measures.log_evaluation import risk_of
from safemesa.learners.config import RiskConfig
from safemesa.phases.collection.logs import collect_test_log
from safemesa.phases.collection.tasks import sample_test_task
from safemesa.phases.config import RunConfig, fitted

ROOT = Path(__file__).resolve().parents[1]


# --- Rows before first violations ------------------------------------------------------------


def log_columns(costs: list[list[int]], terminated: list[bool]) -> dict[str, np.ndarray]:
    """Episodes by their costs; `terminated` says which of them ended by themselves."""
    lengths = [len(one) for one in costs]
    ends = [[False] * (len(c) - 1) + [t] for c, t in zip(costs, terminated, strict=True)]
    rows = sum(lengths)
    return {
        "obs": np.arange(rows, dtype=np.float32)[:, None],
        "cost": np.concatenate(costs).astype(np.float32),
        "terminated": np.concatenate(ends),
        "episode": np.repeat(np.arange(len(costs), dtype=np.int32), lengths),
        "step": np.concatenate([np.arange(n, dtype=np.int32) for n in lengths]),
    }


def asked(costs: list[list[int]], terminated: list[bool], gamma: float, length: int | None = None):
    columns = log_columns(costs, terminated)
    return first_violations(columns, np.zeros((len(columns["cost"]), 1), np.float32), gamma, length)


def test_only_rows_up_to_the_first_violation_count() -> None:
    rows = asked([[0, 0, 1, 0, 1], [0, 0], [1, 1]], [False, True, True], 0.5)
    assert rows.obs[:, 0].tolist() == [0, 1, 2, 5, 6, 7]
    assert rows.steps_left.tolist() == [2, 1, 0, SAFE, SAFE, 0]
    assert rows.outcome.tolist() == [0.25, 0.5, 1.0, 0.0, 0.0, 1.0]
    assert rows.scored.all()


def test_rows_whose_label_is_not_known_are_not_scored() -> None:
    """A recording of 10 steps that just stops: the last 6 could be within 0.5^7 < .01 of harm."""
    rows = asked([[0] * 10], [False], 0.5)
    assert rows.scored.tolist() == [True] * 4 + [False] * 6
    goal = asked([[0] * 10], [True], 0.5)
    assert goal.scored.all()


def test_rows_beyond_the_log_are_there_for_labels_only() -> None:
    rows = asked([[0, 0, 0, 1]], [True], 0.5, length=2)
    assert rows.scored.tolist() == [True, True, False, False]
    assert rows.outcome.tolist() == [0.125, 0.25, 0.5, 1.0]


# --- Warnings ----------------------------------------------------------------------------------


def test_a_warning_is_unbroken_up_to_the_violation() -> None:
    left = np.array([3, 2, 1, 0, 2, 1, 0, SAFE, SAFE, 1, 0])
    flagged = np.array([1, 0, 1, 1, 1, 1, 1, 1, 0, 1, 0], bool)
    assert warning_steps(flagged, left).tolist() == [2, 3, 0]


def test_a_warning_does_not_reach_into_the_episode_before() -> None:
    left = np.array([0, 0, 1, 0])
    assert warning_steps(np.ones(4, bool), left).tolist() == [1, 1, 2]


def test_scores_of_a_hand_made_critic() -> None:
    rows = asked([[0, 0, 1], [0, 0, 0, 0], [0, 1]], [True, True, True], 0.5)
    risk = np.array([0.0, 0.6, 0.9, 0.6, 0.0, 0.0, 0.0, 0.2, 0.7])
    scores = critic_scores(risk, rows, 0.3)
    # Above the limit by their label: steps with one step left, and the violations themselves.
    assert scores["states_above_limit"] == 4
    assert scores["false_negative_rate"] == pytest.approx(1 / 4)
    assert scores["false_positive_rate"] == pytest.approx(1 / 5)
    assert (scores["caught_0"], scores["caught_2"], scores["caught_4"]) == (1.0, 0.0, None)
    assert scores["warning_steps_median"] == 1.5
    assert scores["false_alarm_steps"] == 0.25
    assert (scores["states"], scores["violations"]) == (9, 2)


def test_scores_without_any_violation_are_absent_not_zero() -> None:
    scores = critic_scores(np.zeros(3), asked([[0, 0, 0]], [True], 0.5), 0.3)
    absent = ("auc", "false_negative_rate", "caught_0", "warning_steps_median")
    assert [scores[name] for name in absent] == [None] * 4
    assert scores["false_alarm_steps"] == 0.0


@pytest.mark.parametrize(
    ("gamma", "limit", "most"), [(0.8, 0.1, 11), (0.5, 0.25, 2), (0.5, 0.5, 1)]
)
def test_an_exact_critic_warns_while_its_discounted_certainty_is_above_the_limit(
    gamma: float, limit: float, most: int
) -> None:
    assert longest_warning(gamma, limit) == most
    assert gamma ** (most - 1) > limit >= gamma**most


# --- Escapes -----------------------------------------------------------------------------------


def test_escapes_are_counted_by_spans() -> None:
    episode = np.array([0, 0, 0, 0, 0, 1, 1, 2, 2, 3])
    intervened = np.array([1, 0, 1, 1, 0, 1, 1, 1, 0, 0], bool)
    violation = np.array([0, 0, 0, 0, 0, 0, 1, 0, 0, 1], bool)
    found = escapes(intervened, violation, episode)
    # Spans: step 0, steps 2-3, steps 5-6 (which fails), step 7 in the next episode.
    assert found["entries"] == 4
    assert found["escaped"] == 0.75
    assert found["violations"] == 2
    assert found["violations_under_recovery"] == 0.5
    assert found["recovery_steps"] == 0.6
    assert found["steps_to_violation_median"] == 2.0


def test_a_run_without_interventions_has_no_escapes() -> None:
    none = np.zeros(3, bool)
    found = escapes(none, none, np.zeros(3, np.int32))
    assert (found["entries"], found["escaped"], found["violations_under_recovery"]) == (
        0,
        None,
        None,
    )


# --- Rescues -----------------------------------------------------------------------------------


def falling_pole(angle: float, speed: float) -> dict[str, np.ndarray]:
    """A run of one episode: a safe step, then two under recovery, of which the second violates."""
    obs = np.array([[0.0, 0.0, 0.0, 0.0], [0.0, angle, 0.0, speed], [0.0, 1.0, 0.0, 1.0]])
    return {
        "obs": obs.astype(np.float32),
        "action": np.zeros((3, 1), np.float32),
        "proposed_action": np.array([[0.0], [1.0], [1.0]], np.float32),
        "cost": np.array([0.0, 0.0, 1.0], np.float32),
        "episode": np.zeros(3, np.int32),
        "step": np.arange(3, dtype=np.int32),
    }


def test_other_actions_rescue_an_upright_pole_and_none_a_falling_one() -> None:
    cartpole = find_domain("cartpole")
    task = sample_test_task(cartpole, 0)
    upright = rescues(cartpole, task, falling_pole(0.0, 0.0), steps=5)
    assert upright == {"takeovers_tried": 1, "rescued_0": 1.0, "rescued_5": 1.0}
    falling = rescues(cartpole, task, falling_pole(1.5, 20.0), steps=5)
    # One step earlier, where the episode begins, the pole was upright.
    assert falling == {"takeovers_tried": 1, "rescued_0": 0.0, "rescued_5": 1.0}


def test_rescues_are_not_tried_where_no_simulator_can_be_set() -> None:
    found = rescues(TASK, sample_test_task(TASK, 0), falling_pole(0.0, 0.0), steps=5)
    assert found == {"takeovers_tried": 0, "rescued_0": None, "rescued_5": None}


@pytest.mark.parametrize("robot", ["Humanoid-v5", "Pusher-v5", "Ant-v5"])
def test_rescues_are_not_tried_where_an_observation_is_no_state(robot: str) -> None:
    """These observe less than the state, or more, such as forces and the tip of an arm."""
    tasks = PerturbedTasks(robot, lambda *_: (), cost=lambda *_: False)
    columns = falling_pole(0.0, 0.0) | {"obs": np.zeros((3, tasks.spaces.obs_size), np.float32)}
    found = rescues(tasks, (), columns, steps=5)
    assert found == {"takeovers_tried": 0, "rescued_0": None, "rescued_5": None}


# --- Known answers on probes -------------------------------------------------------------------


DATA_SEED = 6
"""Its four training tasks have either sign twice, so that the prior can prefer neither."""


def probe_configs(probe: AbstractProbe) -> dict[str, RunConfig]:
    """Small networks that learn quickly; the scratch arm has few rows of the test task."""

    def config(arm: str) -> RunConfig:
        one = tiny_config(arm)
        return replace(
            one,
            domain=probe.name,
            data_seed=DATA_SEED,
            data=replace(one.data, train_transitions=400, test_transitions=60),
            risk=RiskConfig(hidden=(16,)),
            guard_settings=replace(one.guard_settings, risk_limit=0.3),
            meta=fitted(type(one.meta), one.meta, {"iterations": 300, "outer_rate": 5e-3}),
            adapt=replace(one.adapt, steps=150, scratch_steps=300, batch=64, learning_rate=5e-3),
        )

    return {arm: config(arm) for arm in ("multitask", "mesa", "rrl")}


def probe_scores(probe: AbstractProbe, folder: Path, *arms: str) -> dict[str, dict]:
    """Scores of some arms' critics and of oracles under the random policy, without Phase 3."""
    configs = probe_configs(probe)
    config = configs["multitask"]
    test = collect_test_log(probe, config)
    place = Workplace(data_dir=folder)
    critics = trained_critics({arm: configs[arm] for arm in arms}, {}, test, place)
    critics |= oracles(configs, critics["multitask_prior"], test, test.only_log())
    log = asked_log(probe, config, sample_test_task(probe, config.seed))
    gamma = config.risk.gamma_risk
    rows = first_violations(log.columns, np.asarray(log.columns["action"]), gamma)
    return {
        name: critic_scores(risk_of(model, rows.obs, rows.action), rows, 0.3)
        for name, model in critics.items()
    }


def test_where_only_the_task_tells_the_risk_there_is_headroom_and_adaptation_uses_it(
    tmp_path: Path,
) -> None:
    scores = probe_scores(TASK, tmp_path, "multitask", "mesa")
    brier = {name: one["brier"] for name, one in scores.items()}
    # Without data of the task nothing is better than 1/2, whose Brier score is 1/4.
    assert brier["multitask_prior"] > 0.2
    assert max(brier["oracle"], brier["oracle_scratch"]) < 0.06
    assert max(brier["multitask"], brier["mesa"]) < 0.08


def test_where_all_tasks_share_the_risk_there_is_no_headroom(tmp_path: Path) -> None:
    scores = probe_scores(ACTION, tmp_path, "multitask")
    assert abs(scores["multitask_prior"]["auc"] - scores["oracle"]["auc"]) < 0.03
    assert abs(scores["multitask_prior"]["brier"] - scores["oracle"]["brier"]) < 0.02


# --- Whole measurements, files, the command ----------------------------------------------------


@pytest.mark.slow
def test_a_measurement_has_a_row_per_critic_and_policy_and_uses_finished_runs(
    tmp_path: Path,
) -> None:
    configs = {arm: tiny_config(arm) for arm in DEPLOYED}
    place = Workplace(runs_dir=tmp_path / "runs", data_dir=tmp_path / "data")
    rows, escaped = measure(configs, place)
    assert {(row["critic"], row["policy"]) for row in rows} == {
        (critic, policy)
        for policy in ("data", "task")
        for critic in (
            *("multitask_prior", "multitask", "mesa_prior", "mesa", "rrl"),
            *("oracle", "oracle_scratch", "oracle_task_policy"),
        )
    }
    assert [row["arm"] for row in escaped] == ["multitask", "mesa", "rrl"]
    again = measure(configs, place)
    assert again == (rows, escaped)

    files = HeadroomFiles(folder=tmp_path / "out")
    files.add(rows, escaped)
    assert files.has(configs["mesa"])
    assert not files.has(replace(configs["mesa"], seed=8))
    with pytest.raises(ConfigurationError, match="Choose another --out"):
        files.has(replace(configs["mesa"], preset="paper"))
    assert main(["headroom", "--out", str(files.folder)]) == 0
    text = (files.folder / "headroom.md").read_text()
    assert text == headroom_markdown(rows, escaped)
    assert "| navigation2 | data | headroom | 1 |" in page_tables(rows, escaped)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["navigation3"], "Did you mean 'navigation"),
        (["navigation1", "--preset", "huge"], "unknown preset 'huge'"),
        (["navigation1", "--runs", "nowhere"], "nowhere is no folder"),
        (["navigation1", "--seeds", "-1"], "expected numbers of 0 or more"),
        ([], "holds no measurements"),
    ],
)
def test_wrong_input_is_told(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["headroom", *words]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_more_arms_must_have_a_prior() -> None:
    names = configurations("navigation1", "cpu", 0, ("mesa_metasgd",))
    assert list(names) == [*DEPLOYED, "mesa_metasgd"]
    for arm in ("carl", "reward_penalty", "scratch+sqrl"):
        with pytest.raises(ConfigurationError, match="has no prior"):
            configurations("navigation1", "cpu", 0, (arm,))


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "headroom.jsonl").write_text('{"domain": ')
    with pytest.raises(DatasetError, match="damaged"):
        HeadroomFiles(folder=tmp_path).critics()


def test_the_page_shows_the_committed_measurements() -> None:
    """`safemesa headroom --out results/headroom` prints these tables."""
    files = HeadroomFiles(folder=ROOT / "results" / "headroom")
    critics, escaped = files.critics(), files.escapes()
    assert critics
    assert (files.folder / "headroom.md").read_text() == headroom_markdown(critics, escaped)
    page = (ROOT / "docs" / "headroom.md").read_text()
    block = page.split("<!-- headroom:begin -->")[1].split("<!-- headroom:end -->")[0]
    expected = summary_table(critics, escaped)
    assert block.strip() == expected, f"put this between the marks:\n{expected}"
    assert len(expected.splitlines()) == 9
    assert all(json.dumps(row) for row in critics)
