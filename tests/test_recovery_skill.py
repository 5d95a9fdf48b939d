"""Skill of recoveries: known answers by hand, on probes, Navigation and Cartpole; the command."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, final

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from handmade import constant_critic, constant_recovery, logistic_critic, sigmoid
from jaxtyping import Array, Float
from tiny import tiny_config

from safemesa.cli.main import main
from safemesa.core.errors import ConfigurationError, DatasetError
from safemesa.core.types import PyTree
from safemesa.datasets.task_log import TaskLog
from safemesa.domains.base import AbstractDomain, sample_test_task
from safemesa.domains.mujoco_domain import AbstractMujocoDomain
from safemesa.domains.perturb import PerturbedTasks
from safemesa.domains.probes import ACTION, DELAYED, NEVER as HARMLESS
from safemesa.domains.registry import domain as find_domain
from safemesa.experiments.recovery_skill import skill_starts
from safemesa.experiments.recovery_skill.drivers import (
    ConstantDriver,
    hand_made,
    least_risk_driver,
    no_action,
    random_actions,
    recovery_driver,
)
from safemesa.experiments.recovery_skill.measure_skill import Skill, measure_skill, skills_of
from safemesa.experiments.recovery_skill.rollouts import NEVER, TOGETHER, make_simulator
from safemesa.experiments.recovery_skill.skill_starts import (
    BEFORE,
    CALM,
    SkillSettings,
    find_starts,
    replay_starts,
    start_rows,
)
from safemesa.experiments.recovery_skill.skill_tables import skill_markdown
from safemesa.experiments.recovery_skill.subjects import (
    NamedModel,
    Subject,
    find_subjects,
    own_limit,
)
from safemesa.experiments.recovery_skill.takeover_truth import (
    MetStates,
    Truth,
    draw_states,
    errors_at,
    signal_scores,
    takeover_truth,
)
from safemesa.learners.recovery import AbstractRecovery
from safemesa.networks.critics import RiskCritic
from safemesa.networks.normaliser import identity_normaliser
from safemesa.phases.config import with_names
from safemesa.phases.run import RunOptions, run
from safemesa.phases.storage.artefacts import RiskModel

SEED = 7


class HandMade(AbstractRecovery):
    """Recoveries of these tests are made by hand."""

    @classmethod
    def make(cls, config: Any, risk: Any, spaces: Any, *, key: Any) -> AbstractRecovery:
        raise NotImplementedError


@final
class FromTheBlock(HandMade):
    """Straight away from the middle of Navigation 2's block, or, with `sign` -1, into it."""

    sign: Float[Array, ""]

    def act(
        self, critic: RiskCritic, obs: Float[Array, " obs"], memory: PyTree
    ) -> tuple[Float[Array, " act"], PyTree]:
        offset = obs - jnp.asarray([-25.0, 0.0], jnp.float32)
        return self.sign * offset / jnp.linalg.norm(offset), memory


@final
class TiredAtThird(HandMade):
    """Pushes back for two steps and forward from the third on, by what it remembers."""

    def begin(self) -> PyTree:
        return jnp.int32(0)

    def act(
        self, critic: RiskCritic, obs: Float[Array, " obs"], memory: PyTree
    ) -> tuple[Float[Array, " act"], PyTree]:
        return jnp.where(memory >= 2, jnp.ones(1), -jnp.ones(1)), memory + jnp.int32(1)


def model_of(recovery: AbstractRecovery, critic: RiskCritic, obs_size: int = 1) -> RiskModel:
    return RiskModel(critic, recovery, identity_normaliser(obs_size))


def probe_model(recovery: AbstractRecovery) -> RiskModel:
    """Its critic says sigmoid(action)."""
    return model_of(recovery, logistic_critic((0.0, 1.0, 0.0)))


def subject_of(domain: AbstractDomain, **models: RiskModel) -> Subject:
    config = replace(tiny_config(), domain=domain.name)
    named = tuple(NamedModel(name=name, model=one, limit=0.1) for name, one in models.items())
    return Subject(
        name="by hand", path=Path(), config=config, domain=domain, seed=SEED, models=named,
        replay=False,
    )  # fmt: skip


# --- Where drivers start -----------------------------------------------------------------------


def log_of(costs: list[list[int]], terminated: list[bool]) -> TaskLog:
    ends = [[False] * (len(c) - 1) + [t] for c, t in zip(costs, terminated, strict=True)]
    lengths = [len(one) for one in costs]
    columns = {
        "obs": np.arange(sum(lengths), dtype=np.float32)[:, None],
        "cost": np.concatenate(costs).astype(np.float32),
        "terminated": np.concatenate(ends),
        "episode": np.repeat(np.arange(len(costs), dtype=np.int32), lengths),
    }
    return TaskLog(name="by hand", role="test", columns=columns)


def test_starts_are_known_and_begin_in_no_violation() -> None:
    """Two steps before harm, and calm for four."""
    log = log_of(
        [[0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 0], [0, 0], [0, 1], [0, 0, 0, 0, 0, 1]],
        [False, False, True, False, True],
    )
    found = start_rows(log, SkillSettings(before=2), np.random.default_rng(0))
    # Row 1 and row 18 lie two steps ahead of the rows that violate; row 13 has no such row.
    assert found[BEFORE].tolist() == [1, 18]
    # Of the second episode rows 6 and 7 are followed by four safe steps, their own among them; the
    # third ends by itself; the last violates five steps after row 15. Two rows are too near.
    for one, pair in zip(found[CALM].tolist(), ({6, 7}, {11, 12}, {15, 16}), strict=True):
        assert one in pair


def test_a_calm_state_is_followed_by_safe_steps_and_neighbours_are_left_out() -> None:
    log = log_of([[0] * 20], [False])
    found = start_rows(log, SkillSettings(before=2), np.random.default_rng(0))[CALM]
    assert len(found) >= 3
    assert np.diff(found).min() >= 4
    assert found.max() <= 16


def test_starts_are_the_same_for_the_same_seed_and_differ_for_another() -> None:
    domain, settings = find_domain("navigation2"), SkillSettings(starts=5)
    task = sample_test_task(domain, SEED)
    first, again, other = (find_starts(domain, task, seed, settings) for seed in (SEED, SEED, 8))
    for kind in (CALM, BEFORE):
        assert first.of(kind).shape == (5, 2)
        assert np.array_equal(first.of(kind), again.of(kind))
        assert not np.array_equal(first.of(kind), other.of(kind))
    assert first.source == "4000 steps of the random policy"


def test_where_nothing_ever_happens_there_are_calm_states_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(skill_starts, "BLOCKS", 2)
    settings = SkillSettings(starts=3)
    starts = find_starts(HARMLESS, sample_test_task(HARMLESS, 0), 0, settings)
    assert (len(starts.calm), len(starts.before)) == (3, 0)
    simulator = make_simulator(HARMLESS, sample_test_task(HARMLESS, 0))
    skills = skills_of(simulator, no_action(HARMLESS.spaces), "none", None, starts, settings, 0)
    assert [(one.states, one.n, one.violated) for one in skills] == [(CALM, 3, 0)]


def test_no_state_to_start_from_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every episode of this probe violates in its fourth step."""
    monkeypatch.setattr(skill_starts, "BLOCKS", 2)
    task, settings = sample_test_task(DELAYED, 0), SkillSettings(before=8)
    with pytest.raises(DatasetError, match="Try another --before"):
        find_starts(DELAYED, task, 0, settings)
    assert len(find_starts(DELAYED, task, 0, SkillSettings(starts=2, before=3)).before) == 2


@pytest.mark.parametrize(
    "wrong", [{"starts": 0}, {"horizon": 0}, {"before": -1}, {"labels": -1}, {"states": "log"}]
)
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"{next(iter(wrong))} is"):
        SkillSettings(**wrong)


# --- Skill -------------------------------------------------------------------------------------


def test_who_steps_away_never_violates_and_who_steps_in_always_does() -> None:
    domain, critic = find_domain("navigation2"), constant_critic(0.0, obs_size=2, action_size=2)
    subject = subject_of(
        domain,
        prior=model_of(FromTheBlock(jnp.float32(1.0)), critic, 2),
        deployed=model_of(FromTheBlock(jnp.float32(-1.0)), critic, 2),
    )
    settings = SkillSettings(starts=10, horizon=80)
    (report,) = measure_skill([subject], settings)
    shares = {(one.driver, one.model, one.states): one.share for one in report.skills}
    for kind in (CALM, BEFORE):
        assert shares["recovery", "prior", kind] == 0.0
        assert shares["recovery", "deployed", kind] == 1.0
        assert shares["steps away from the walls", None, kind] == 0.0
    assert shares["random actions", None, BEFORE] > 0.0
    assert (report.met, report.truths) == (None, ())
    assert report.skills[0].interval == (0.0, pytest.approx(0.308, abs=1e-3))
    text = skill_markdown([report], settings)
    assert "| by hand | recovery, after Phase 1 | 0.00 [0.00, 0.31] (10) |" in text
    again = measure_skill([subject], settings)[0]
    assert again.skills == report.skills


def test_a_recovery_remembers_while_it_drives_and_begins_anew_after_a_proposal() -> None:
    """In this probe a positive action violates at once, and others change nothing."""
    simulator = make_simulator(ACTION, sample_test_task(ACTION, 0))
    driver = recovery_driver(probe_model(TiredAtThird()), ACTION.spaces)
    starts = np.ones((2, 1), np.float32)
    alone = simulator.drive(driver, starts, 5, seed=0)
    assert alone.violated_at.tolist() == [2, 2]
    after = simulator.drive(driver, starts, 5, seed=0, first=np.array([[-1.0], [0.5]]))
    assert after.violated_at.tolist() == [3, 0]
    assert after.next_obs[:, 0].tolist() == [1.0, 0.0]
    assert simulator.drive(driver, starts, 2, seed=0).violated_at.tolist() == [NEVER, NEVER]


def test_the_action_of_least_risk_is_the_first_of_a_grid() -> None:
    driver = least_risk_driver(probe_model(constant_recovery(0.0)), ACTION.spaces, 5)
    assert driver.candidates[:, 0].tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]
    action, _ = driver.act(jnp.ones(1), (), key=jax.random.key(0))
    assert action.tolist() == [-1.0]


def test_in_the_maze_no_command_is_a_brake() -> None:
    maze = find_domain("maze")
    known = hand_made(maze)
    assert known is not None
    assert known[0] == "brake"
    task, settings = sample_test_task(maze, 0), SkillSettings(starts=6, horizon=20, before=2)
    starts = find_starts(maze, task, 0, settings)
    skills = skills_of(make_simulator(maze, task), known[1], "brake", None, starts, settings, 0)
    assert [(one.n, one.violated) for one in skills] == [(6, 0), (6, 0)]


# --- Robots of MuJoCo --------------------------------------------------------------------------


def test_the_linear_controller_holds_the_pole_and_no_action_lets_it_fall() -> None:
    pytest.importorskip("mujoco")
    cartpole = find_domain("cartpole")
    task, settings = sample_test_task(cartpole, 0), SkillSettings(starts=12)
    starts, simulator = find_starts(cartpole, task, 0, settings), make_simulator(cartpole, task)
    known = hand_made(cartpole)
    assert known is not None

    def calm(driver: Any) -> Skill:
        return skills_of(simulator, driver, "", None, starts, settings, 0)[0]

    assert (calm(known[1]).n, calm(known[1]).violated) == (12, 0)
    assert calm(no_action(cartpole.spaces)).violated == 12
    simulator.close()


def test_driving_a_simulated_robot_is_what_a_plain_loop_does() -> None:
    pytest.importorskip("mujoco")
    cheetah = cast(AbstractMujocoDomain, find_domain("halfcheetah"))
    task = sample_test_task(cheetah, 0)
    env = cast(Any, cheetah.make_env(task))
    env.reset(seed=0)
    pushes = np.random.default_rng(0).uniform(-1.0, 1.0, (TOGETHER + 2, 6))
    states = np.stack([env.step(push)[0] for push in pushes]).astype(np.float32)
    simulator = make_simulator(cheetah, task)
    push = np.linspace(-1.0, 1.0, 6, dtype=np.float32)
    steady = ConstantDriver(jnp.asarray(push))
    first = np.zeros((len(states), 6), np.float32)
    driven = simulator.drive(steady, states, 30, seed=0, first=first)
    assert driven.violated.any()
    assert not driven.violated.all()
    for row in (0, 1, len(states) - 1):
        assert env.observe_again(states[row])
        results = [env.step(action) for action in [first[row], *[push] * 29]]
        costs = [one[4]["cost"] for one in results]
        expected = costs.index(1.0) if 1.0 in costs else NEVER
        assert driven.violated_at[row] == expected
        assert np.array_equal(driven.next_obs[row], results[0][0].astype(np.float32))
    # A start's draws do not depend on the others.
    drawn = random_actions(cheetah.spaces)
    few, many = (simulator.drive(drawn, some, 20, seed=3) for some in (states[:2], states))
    assert np.array_equal(few.next_obs, many.next_obs[:2])
    assert np.array_equal(few.violated_at, many.violated_at[:2])
    simulator.close()


@pytest.mark.parametrize("robot", ["Humanoid-v5", "Ant-v5"])
def test_robots_whose_observation_is_no_state_are_refused(robot: str) -> None:
    pytest.importorskip("mujoco")
    tasks = PerturbedTasks(robot, lambda *_: (), cost=lambda *_: False)
    simulator = make_simulator(tasks, ())
    start = np.zeros((1, tasks.spaces.obs_size), np.float32)
    with pytest.raises(ConfigurationError, match="cannot be restored from observations"):
        simulator.drive(no_action(tasks.spaces), start, 1, seed=0)


# --- Truth of the takeover ---------------------------------------------------------------------


def met_actions(*actions: float) -> MetStates:
    proposed = np.asarray(actions, np.float32)[:, None]
    count = len(actions)
    return MetStates(
        obs=np.ones((count, 1), np.float32), proposed=proposed, weight=np.ones(count), parts={}
    )


def truth_of(recovery: AbstractRecovery, *actions: float) -> Truth:
    """On the probe whose positive actions violate, while others change nothing."""
    named = NamedModel(name="adapted", model=probe_model(recovery), limit=0.55)
    simulator = make_simulator(ACTION, sample_test_task(ACTION, 0))
    return takeover_truth(simulator, named, met_actions(*actions), ACTION.spaces, 4, 0)


def test_labels_and_signals_are_those_of_a_case_by_hand() -> None:
    actions = (0.5, -0.5, 0.1, -1.0)
    truth = truth_of(constant_recovery(-1.0), *actions)
    assert truth.fails.tolist() == [True, False, True, False]
    value = sigmoid(np.tanh(-1.0))
    assert truth.signals["risk"] == pytest.approx(sigmoid(np.array(actions)), abs=1e-6)
    assert truth.signals["advantage"] == pytest.approx(sigmoid(np.array(actions)) - value, abs=1e-6)
    # Who knows the next state knows that it violates.
    assert truth.signals["next_value"] == pytest.approx([1.0, value, 1.0, value], abs=1e-6)
    risk, advantage, next_value = signal_scores(truth, np.ones(4))
    assert [one["auc"] for one in (risk, advantage, next_value)] == [1.0, 1.0, 1.0]
    assert not next_value["known_on_a_robot"]
    own = next(one for one in risk["limits"] if one["chosen_by"] == "own")
    # Risk .622 and .525 fail, .378 and .269 do not, and the limit is .55.
    assert (own["misses"], own["false_alarms"], own["taken_over"]) == (0.5, 0.0, 0.25)
    assert "own" not in [one["chosen_by"] for one in advantage["limits"]]
    assert [one["misses"] for one in risk["limits"][1:]] == [0.0] * 6


def test_a_recovery_that_fails_saves_nobody_and_its_scores_say_so() -> None:
    truth = truth_of(constant_recovery(1.0), -1.0, 1.0)
    assert truth.fails.all()
    (risk, *_) = signal_scores(truth, np.ones(2))
    assert risk["auc"] is None
    assert [one["chosen_by"] for one in risk["limits"]] == ["own", "misses 0.05"]
    assert risk["limits"][0]["false_alarms"] is None


def test_the_horizon_begins_after_the_proposal() -> None:
    """This probe violates four steps after position 4, whatever is done."""
    simulator = make_simulator(DELAYED, sample_test_task(DELAYED, 0))
    named = NamedModel(name="prior", model=probe_model(constant_recovery(0.0)), limit=None)
    met = replace(met_actions(0.0), obs=np.full((1, 1), 4.0, np.float32))
    fails = [
        bool(takeover_truth(simulator, named, met, DELAYED.spaces, horizon, 0).fails[0])
        for horizon in (2, 3)
    ]
    assert fails == [False, True]


def test_errors_at_a_limit_by_hand() -> None:
    signal, fails = np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, True, False, True])
    found = errors_at(0.4, signal, fails, np.array([7.0, 1.0, 1.0, 1.0]))
    # A guard takes over above its limit, not at it.
    assert found == {"limit": 0.4, "misses": 0.5, "false_alarms": 0.0, "taken_over": 0.1}


def test_states_are_drawn_from_before_harm_from_overrides_and_from_the_rest() -> None:
    rows = 40
    columns = {
        "obs": np.arange(rows, dtype=np.float32)[:, None],
        "proposed_action": np.arange(rows, dtype=np.float32)[:, None] / rows,
        "cost": np.zeros(rows, np.float32),
        "terminated": np.zeros(rows, np.float32),
        "episode": np.repeat(np.arange(2, dtype=np.int32), 20),
    }
    columns["cost"][19] = columns["terminated"][19] = 1.0
    columns["action"] = columns["proposed_action"].copy()
    columns["action"][[18, 20, 21, 22, 23, 24, 25]] += 1.0
    met = draw_states(columns, 12, 2, seed=0)
    # Three rows before harm (18 is an override too), six overrides, and the other 31.
    assert met.parts == {
        "within 2 steps of a violation": (3, 3),
        "overridden": (6, 4),
        "all others": (31, 5),
    }
    assert met.obs[:3, 0].tolist() == [17, 18, 19]
    assert set(met.obs[3:7, 0]) <= set(range(20, 26))
    assert met.weight.tolist() == pytest.approx([1.0] * 3 + [1.5] * 4 + [6.2] * 5)
    assert np.array_equal(met.proposed, met.obs / rows)
    assert len(draw_states(columns, 100, 2, seed=0).obs) == rows


def test_own_limits() -> None:
    model, config = probe_model(constant_recovery(0.0)), tiny_config()
    assert own_limit(model, config) == config.risk_limit
    found = replace(model, limit=jnp.float32(0.25))
    assert own_limit(found, config) == 0.25
    takeover = with_names(config, guard="takeover")
    assert own_limit(model, takeover) is None
    assert own_limit(found, takeover) == 0.25


# --- The command -------------------------------------------------------------------------------

FLAGS = ["--starts", "6", "--horizon", "20", "--labels", "12"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run."""
    folder = tmp_path_factory.mktemp("runs")
    run([tiny_config()], [folder / "mesa"], RunOptions(data_dir=folder / ".data"))
    return folder


def asked(words: list[str], out: Path) -> dict[str, Any]:
    assert main(["skill", *words, *FLAGS, "--out", str(out)]) == 0
    return json.loads(out.read_text())


def test_a_run_is_asked_and_the_same_numbers_come_again(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = asked([str(finished), "--candidates", "3"], tmp_path / "skill.json")
    text = capsys.readouterr().out
    (found,) = record["runs"]
    assert (found["arm"], found["domain"], found["seed"]) == ("mesa", "navigation2", 7)
    assert [(one["driver"], one["model"]) for one in found["skill"][::2]] == [
        ("no action", None),
        ("random actions", None),
        ("steps away from the walls", None),
        *[(who, m) for m in ("prior", "adapted", "deployed") for who in ("recovery", "least risk")],
    ]
    assert all(
        one["n"] == 6 and one["low"] <= one["share"] <= one["high"] for one in found["skill"]
    )
    models = found["takeover"]["models"]
    assert [one["model"] for one in models] == ["prior", "adapted", "deployed"]
    assert [one["states"] for one in models] == [12, 12, 12]
    drawn = [part["drawn"] for part in found["takeover"]["drawn_from"].values()]
    assert sum(drawn) == 12
    assert "recovery, after Phase 3" in text
    assert "| risk of the proposal, Q(s, a) |" in text
    again = asked([str(finished), "--candidates", "3"], tmp_path / "again.json")
    assert again["runs"] == record["runs"]


def test_half_a_run_and_an_adapted_folder_are_asked_too(finished: Path, tmp_path: Path) -> None:
    whole = asked([str(finished / "mesa")], tmp_path / "whole.json")["runs"][0]
    half = tmp_path / "half"
    shutil.copytree(finished / "mesa", half)
    (half / "summary.json").unlink()
    shutil.rmtree(half / "artefacts" / "deployed_risk_model")
    shutil.rmtree(half / "replay")
    (half / "metrics.jsonl").unlink()
    found = asked([str(half)], tmp_path / "half.json")["runs"][0]
    assert found["takeover"] is None
    assert found["skill"] == [one for one in whole["skill"] if one["model"] != "deployed"]
    artefact = finished / "mesa" / "artefacts" / "risk_model"
    words = [str(artefact), "--domain", "navigation2"]
    adapted = asked(words, tmp_path / "adapted.json")["runs"][0]
    assert adapted["skill"] == [one for one in found["skill"] if one["model"] != "prior"]


def test_starts_come_from_the_replay_where_it_holds_enough(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (subject,) = find_subjects([finished])
    log = log_of([[0] * 9, [0, 0, 0, 1]], [True, True])
    columns = {**log.columns, "obs": np.repeat(log.columns["obs"], 2, axis=1)}
    monkeypatch.setattr(skill_starts, "replay_columns", lambda folder: columns)
    settings = SkillSettings(starts=1, horizon=5, before=2, labels=0, states="replay")
    assert replay_starts(subject.path, SEED, replace(settings, starts=2)) is None
    (report,) = measure_skill([subject], settings)
    assert report.starts.source == "13 steps of the run's replay"
    assert report.starts.before.tolist() == [[10.0, 10.0]]
    assert len(report.starts.calm) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing"], "missing is no folder"),
        (["."], "no risk model in ."),
        ([".", "--starts", "0"], "starts is 0; expected 1 or more"),
        ([".", "--seed", "-1"], "seed is -1"),
        (["RUN", "--domain", "maze"], "leave it out for runs"),
        (["RUN/artefacts/risk_model"], "give --domain"),
        (["RUN/artefacts/risk_model", "--domain", "maze"], "does not fit maze"),
        (["RUN/artefacts/risk_model", "--domain", "mazes"], "Did you mean 'maze'?"),
    ],
)
def test_wrong_input_is_told(
    words: list[str],
    message: str,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [word.replace("RUN", str(finished / "mesa")) for word in words]
    assert main(["skill", *given]) == 2
    assert message in capsys.readouterr().err


def test_runs_without_a_risk_are_left_out(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "mesa", tmp_path / "mesa")
    (tmp_path / "none").mkdir()
    shutil.copy(finished / "mesa" / "config.json", tmp_path / "none")
    with pytest.warns(UserWarning, match="left out, without a risk model: .*none"):
        assert len(find_subjects([tmp_path])) == 1
    with pytest.raises(ConfigurationError, match="1 runs have none"):
        find_subjects([tmp_path / "none"])
