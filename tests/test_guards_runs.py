"""Every guard through Phase 3 on Navigation 2, and the arms that show what a part of MESA does."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import lines_without_wall, tiny_config

from safemesa.core.errors import ConfigurationError
from safemesa.domains.registry import domain as find_domain
from safemesa.experiments.arms import ARMS, configure, find_arm
from safemesa.guards import guards
from safemesa.phases.config import RunConfig
from safemesa.phases.run import RunOptions, adopt, run
from safemesa.phases.storage.artefacts import RiskModel, load_prior, load_risk_model, prior_template
from safemesa.phases.storage.checkpoint import Checkpointer
from safemesa.phases.storage.run_folder import METRIC_FIELDS

PRICED = {"lagrangian", "sqrl", "csc", "rcpo"}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """A finished run without a Phase 1, whose risk model all guards of this file share."""
    folder = tmp_path_factory.mktemp("runs") / "scratch"
    run([tiny_config("rrl")], [folder], RunOptions(data_dir=data_dir))
    return folder


def run_behind(guard: str, folder: Path, adapted: Path, data_dir: Path) -> dict:
    """Phase 3 alone, as `safemesa deploy` runs it."""
    config, domain = tiny_config(f"scratch+{guard}"), find_domain("navigation2")
    if guard == "takeover":  # Phase 2 finds its limit, and that of `adapted` had another guard
        with pytest.raises(ConfigurationError, match="the guard takeover has no limit"):
            guards[guard](settings=config.guard_settings).init()
        limited = replace(config.guard_settings, risk_limit=0.1)
        config = replace(config, guard_settings=limited)
    artefacts = adapted / "artefacts"
    model, _, spaces = load_risk_model(artefacts / "risk_model")
    adopt(folder, config, domain, model, spaces, artefacts / "test_log", "")
    return run([config], [folder], RunOptions(data_dir=data_dir))[0]


@pytest.mark.parametrize("guard", sorted(set(guards.names()) - {"recovery_rl", "none"}))
def test_every_guard_leaves_a_complete_run_folder(
    guard: str, adapted: Path, tmp_path: Path, data_dir: Path
) -> None:
    summary = run_behind(guard, tmp_path / guard, adapted, data_dir)
    assert summary["arm"] == f"scratch+{guard}"
    episodes = lines_without_wall(tmp_path / guard / "metrics.jsonl")
    assert len(episodes) == summary["episodes"] == 6
    assert {*episodes[0], "wall_s"} == set(METRIC_FIELDS)
    assert episodes[-1]["cumulative_violations"] == summary["violations"]
    learning = lines_without_wall(tmp_path / guard / "learning.jsonl")[-1]
    numbers = [value for value in learning.values() if value is not None]
    assert np.isfinite(numbers).all()
    assert ("multiplier" in learning) is (guard in PRICED)
    assert ("critic_loss" in learning) is guards[guard].uses_risk
    if guards[guard].uses_risk:
        load_risk_model(tmp_path / guard / "artefacts" / "deployed_risk_model")
    # Of a critic that knows nothing the limit of `takeover` lies anywhere.
    if guard not in ("sqrl", "csc", "takeover"):
        assert summary["interventions"] == 0


class InterruptError(Exception):
    """Stands for a process that dies."""


def test_a_run_with_a_dual_variable_resumes_exactly(
    adapted: Path, tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RCPO's lambda reaches the value targets, so a lost one would show in the next actions."""
    run_behind("rcpo", tmp_path / "straight", adapted, data_dir)
    save = Checkpointer.save

    def dying(self, step, state, notes):
        save(self, step, state, notes)
        if self.phase == "deploy" and step > 60:
            raise InterruptError

    monkeypatch.setattr(Checkpointer, "save", dying)
    with pytest.raises(InterruptError):
        run_behind("rcpo", tmp_path / "broken", adapted, data_dir)
    monkeypatch.setattr(Checkpointer, "save", save)
    run_behind("rcpo", tmp_path / "broken", adapted, data_dir)
    for file in ("metrics.jsonl", "learning.jsonl"):
        broken, straight = (
            lines_without_wall(tmp_path / name / file) for name in ("broken", "straight")
        )
        assert broken == straight
    one, two = (tmp_path / name / "replay" / "rows.f32" for name in ("broken", "straight"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.slow
def test_conservatism_reaches_phase_1_and_phase_2(tmp_path: Path, data_dir: Path) -> None:
    """The prior and the adapted critic of CSC differ from those of MESA by the term alone."""
    configs = [tiny_config("maml+csc"), tiny_config("mesa")]
    none = replace(configs[0].guard_settings, conservatism=0.0)
    configs.append(replace(configs[0], guard_settings=none))
    priors, models = [], []
    for index, config in enumerate(configs):
        run([config], [tmp_path / str(index)], RunOptions(data_dir=data_dir))
        artefacts = tmp_path / str(index) / "artefacts"
        priors.append(load_prior(artefacts / "prior")[0].model.critic)
        models.append(load_risk_model(artefacts / "risk_model")[0].critic)
    for conservative, mesa, off in (priors, models):
        assert largest_difference(off, mesa) < 1e-4 < largest_difference(conservative, mesa)


def largest_difference(one: object, two: object) -> float:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


# --- Arms for analysis ------------------------------------------------------------------------


def with_scratch(arm: str) -> RunConfig:
    """A tiny run of what the arm changes, without the time of a Phase 1."""
    changed = ARMS[arm].change(tiny_config("rrl"))
    return replace(changed, adapt=replace(changed.adapt, scratch_steps=changed.adapt.steps))


def models_of(folder: Path) -> list[RiskModel]:
    names = ("risk_model", "deployed_risk_model")
    return [load_risk_model(folder / "artefacts" / name)[0] for name in names]


def test_the_frozen_arm_learns_no_risk_in_phase_3(
    adapted: Path, tmp_path: Path, data_dir: Path
) -> None:
    run([with_scratch("mesa_frozen")], [tmp_path / "frozen"], RunOptions(data_dir=data_dir))
    before, after = models_of(tmp_path / "frozen")
    assert largest_difference(before, after) == 0.0
    assert largest_difference(*models_of(adapted)) > 1e-3


def test_the_arm_without_adaptation_deploys_the_prior(tmp_path: Path, data_dir: Path) -> None:
    run([with_scratch("mesa_no_adapt")], [tmp_path / "prior"], RunOptions(data_dir=data_dir))
    domain = find_domain("navigation2")
    before, after = models_of(tmp_path / "prior")
    fresh = prior_template(tiny_config("rrl"), domain.spaces).model
    assert largest_difference(before.critic, fresh.critic) == 0.0
    assert largest_difference(before, after) > 1e-3


@pytest.mark.parametrize("preset", ["paper", "quick"])
def test_reference_arms_change_one_thing_of_mesa(preset: str) -> None:
    mesa = configure("mesa", "navigation2", preset)
    oracle = configure("oracle", "navigation2", preset)
    assert oracle.data.test_transitions == mesa.data.train_transitions
    assert oracle.adapt.steps == mesa.adapt.scratch_steps
    no_adapt = configure("mesa_no_adapt", "navigation2", preset)
    assert replace(no_adapt, arm="mesa", adapt=mesa.adapt) == mesa
    assert no_adapt.adapt.steps == 0
    frozen = configure("mesa_frozen", "navigation2", preset)
    assert replace(frozen, arm="mesa", deploy=mesa.deploy) == mesa
    assert not frozen.deploy.learn_risk


def test_arms_combine_any_meta_learner_with_any_guard() -> None:
    arm = find_arm("meta_sgd+sqrl")
    assert (arm.meta_learner, arm.guard, arm.title) == ("meta_sgd", "sqrl", "Meta-SGD + SQRL")
    assert find_arm("mine+yours").title == "mine + yours"
    with pytest.raises(ConfigurationError, match="<meta-learner>"):
        find_arm("sqrl")
