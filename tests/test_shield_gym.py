"""The shield around environments and around agents that are not ours."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from shields import make_source

from safemesa.core.errors import ConfigurationError
from safemesa.domains.registry import domain
from safemesa.networks.normaliser import Normaliser
from safemesa.phases.rehearsal import rehearsal_layout
from safemesa.phases.storage.artefacts import RiskModel
from safemesa.shield.export import ShieldOptions, Source, export_shield
from safemesa.shield.gym import ShieldWrapper, VectorShieldWrapper
from safemesa.shield.online import OnlineRisk
from safemesa.shield.runtime import Shield


def source_for(name: str, hidden: tuple[int, ...] = (16,)) -> Source:
    """A risk model of random weights for a domain, which fits its spaces."""
    spaces = domain(name).spaces
    source = make_source(hidden, spaces=spaces)
    scale = 20.0 if name.startswith("navigation") else 1.0
    normaliser = Normaliser(jnp.zeros(spaces.obs_size), jnp.full(spaces.obs_size, scale))
    model = replace(source.model, normaliser=normaliser)
    config = replace(
        source.config,
        domain=name,
        risk=replace(source.config.risk, hidden=hidden),
        sac=replace(source.config.sac, batch=64),
        deploy=replace(source.config.deploy, learning_rate=1e-2, target_rate=0.05),
    )
    return replace(source, model=model, config=config)


@pytest.fixture(scope="module")
def navigation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shields") / "navigation"
    export_shield(source_for("navigation2"), folder, ShieldOptions())
    return folder


def towards_the_goal(obs: np.ndarray) -> np.ndarray:
    """A scripted policy that drives straight at the origin, and at the block before it."""
    return np.clip(-obs, -1.0, 1.0).astype(np.float32)


def episode(env: gymnasium.Env, seed: int, policy=towards_the_goal) -> list[tuple]:
    obs, _ = env.reset(seed=seed)
    steps, ended = [], False
    while not ended:
        obs, reward, terminated, truncated, info = env.step(policy(obs))
        steps.append((obs, reward, terminated, truncated, info))
        ended = terminated or truncated
    return steps


def test_monitoring_changes_nothing_but_info(navigation: Path) -> None:
    bare = gymnasium.make("safemesa/Navigation2-v0")
    wrapped = ShieldWrapper(gymnasium.make("safemesa/Navigation2-v0"), Shield.load(navigation))
    for seed in range(3):
        first, second = episode(bare, seed), episode(wrapped, seed)
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            np.testing.assert_array_equal(one[0], other[0])
            assert one[1:4] == other[1:4]
            told = {name for name in other[4] if name.startswith("shield_")}
            assert set(other[4]) - told == set(one[4])
            assert told == {
                "shield_risk",
                "shield_overridden",
                "shield_reason",
                "shield_action",
            }
            assert 0.0 <= other[4]["shield_risk"] <= 1.0
            assert not other[4]["shield_overridden"]


def test_enforcing_keeps_a_scripted_policy_from_the_block(navigation: Path) -> None:
    """With a critic and a recovery that know the block, the violations of the policy are gone."""
    block_left, block_top = -32.0, 12.0

    def risk_of(obs: np.ndarray) -> float:
        return float(obs[0] > block_left and obs[1] < block_top and obs[0] < -5.0)

    bare = gymnasium.make("safemesa/Navigation2-v0")
    assert sum(steps[-1][4]["cost"] for steps in (episode(bare, seed) for seed in range(4))) == 4.0
    shield = Shield.load(navigation, mode="enforce", recovery=lambda obs: [-0.2, 1.0])
    shield._risk = lambda: risk_of(shield._obs)
    env = ShieldWrapper(gymnasium.make("safemesa/Navigation2-v0"), shield)
    for seed in range(4):
        steps = episode(env, seed)
        assert sum(step[4]["cost"] for step in steps) == 0.0
        overridden = [step[4]["shield_overridden"] for step in steps]
        assert any(overridden)
        for step, was in zip(steps, overridden, strict=True):
            assert was == (step[4]["shield_risk"] > 0.5)
            if was:
                np.testing.assert_allclose(step[4]["shield_action"], [-0.2, 1.0], rtol=1e-6)


def test_a_policy_that_diverges_does_not_stop_the_training(navigation: Path) -> None:
    env = ShieldWrapper(
        gymnasium.make("safemesa/Navigation2-v0"), Shield.load(navigation, mode="enforce")
    )
    env.reset(seed=0)
    *_, info = env.step(np.array([math.nan, 0.0], np.float32))
    assert info["shield_reason"] == "nan_action"
    np.testing.assert_array_equal(info["shield_action"], [0.0, 0.0])


def test_environments_that_do_not_fit_are_refused(navigation: Path) -> None:
    shield = Shield.load(navigation)
    with pytest.raises(ConfigurationError, match="Box of 2 numbers"):
        ShieldWrapper(gymnasium.make("safemesa/ProbeTask-v0"), shield)
    rescaled = gymnasium.wrappers.RescaleAction(
        gymnasium.make("safemesa/Navigation2-v0"), np.float32(-3.0), np.float32(3.0)
    )
    with pytest.raises(ConfigurationError, match="rescales actions"):
        ShieldWrapper(rescaled, shield)
    env = ShieldWrapper(gymnasium.make("safemesa/Navigation2-v0"), shield)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(2, np.float32))
    with pytest.raises(ConfigurationError, match="recovery_noise"):
        ShieldWrapper(env.env, shield, recovery_noise=-0.1)


# -- online learning ----------------------------------------------------------------------------


def probe(tmp_path: Path) -> tuple[OnlineRisk, Shield, Source]:
    """One sign of the action violates, the other is the goal; the networks know neither."""
    source = source_for("probe_task")
    export_shield(source, tmp_path / "probe", ShieldOptions(risk_limit=0.5))
    online = OnlineRisk(source.model, source.config, source.spaces)
    return online, Shield.load(tmp_path / "probe", mode="enforce"), source


def test_the_risk_model_that_learns_must_be_the_shields(tmp_path: Path) -> None:
    _, shield, source = probe(tmp_path)
    scaled = Normaliser(source.model.normaliser.mean + 3.0, source.model.normaliser.std)
    other = replace_model(source, scaled)
    with pytest.raises(ConfigurationError, match="not the one that this shield was exported from"):
        ShieldWrapper(gymnasium.make("safemesa/ProbeTask-v0"), shield, online=other)


def replace_model(source: Source, normaliser: Normaliser) -> OnlineRisk:
    model = RiskModel(source.model.critic, source.model.recovery, normaliser)
    return OnlineRisk(model, source.config, source.spaces)


def run_probe(env: gymnasium.Env, steps: int, rng: np.random.Generator) -> list[float]:
    costs = []
    env.reset(seed=0)
    for _ in range(steps):
        *_, terminated, truncated, info = env.step(rng.uniform(-1.0, 1.0, 1).astype(np.float32))
        costs.append(info["cost"])
        if terminated or truncated:
            env.reset()
    return costs


def test_it_learns_while_a_foreign_policy_trains(tmp_path: Path) -> None:
    """A policy of random actions violates in half of its steps; the shield learns to stop it."""
    online, shield, source = probe(tmp_path)
    env = ShieldWrapper(gymnasium.make("safemesa/ProbeTask-v0"), shield, online=online)
    rng = np.random.default_rng(0)
    run_probe(env, 400, rng)
    late = run_probe(env, 100, rng)
    bare = run_probe(gymnasium.make("safemesa/ProbeTask-v0"), 100, rng)
    assert sum(bare) > 35
    assert sum(late) <= 0.1 * sum(bare)
    assert online.size == 500
    obs = np.zeros((2, source.spaces.obs_size), np.float32)
    risks = shield.risks(obs, np.array([[-0.8], [0.8]], np.float32))
    assert min(risks) < 0.2
    assert max(risks) > 0.8


def test_the_update_is_that_of_phase_3(tmp_path: Path) -> None:
    """The stored rows are what the robot did: executed action, next proposal, normalised."""
    online, _, _source = probe(tmp_path)
    obs, following = np.array([0.5], np.float32), np.array([0.25], np.float32)
    online.add(obs, np.array([-1.0]), obs + 1.0, 1.0, True, following)
    online.add(obs, np.array([1.0]), obs - 1.0, 0.0, False, None)
    first, second = (
        {name: online._column(online._rows[i : i + 1], name)[0] for name, _ in online.layout.fields}
        for i in (0, 1)
    )
    assert first["obs"] == 0.5
    assert first["next_obs"] == 1.5
    assert first["cost"] == 1.0
    assert first["action"] == -1.0
    assert first["next_action"] == 0.25
    assert first["next_action_logged"] == 1.0
    assert second["next_action_logged"] == 0.0
    assert online.learn() is None, "there is no full batch yet"
    online.add(np.array([math.nan], np.float32), np.array([1.0]), obs, 0.0, False, None)
    assert (online.size, online.skipped) == (2, 1)


def test_old_rows_are_overwritten_and_the_policy_is_asked(tmp_path: Path) -> None:
    source = source_for("probe_task")
    config = replace(source.config, sac=replace(source.config.sac, batch=8))
    asked: list[int] = []

    def policy(obs: np.ndarray) -> np.ndarray:
        asked.append(len(obs))
        return np.full((len(obs), 1), 0.5)

    online = OnlineRisk(source.model, config, source.spaces, capacity=10, policy=policy)
    obs = np.zeros(1, np.float32)
    for number in range(25):
        online.add(obs + 0.01 * number, np.array([0.0]), obs, 0.0, False, obs)
    assert online.size == 10
    stored = sorted(online._column(online._rows, "obs")[:, 0].tolist())
    np.testing.assert_allclose(stored, 0.01 * np.arange(15, 25), rtol=1e-5)
    before = np.array(online.state.critic.ensemble.members.biases[0])
    weights = online.learn()
    assert weights is not None
    assert asked == [8]
    assert not np.array_equal(weights["critic.biases.0"], before)


def test_the_policy_is_not_asked_in_states_of_the_fleet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those rows are rehearsed with the next action that Phase 1 learned them with."""
    source = source_for("probe_task")
    layout = rehearsal_layout(source.spaces)
    fleet = np.zeros((50, layout.width), np.float32)
    fleet[:, layout.places["next_action"]] = -0.25
    fleet[:, layout.places["next_action_logged"]] = 1.0
    config = replace(
        source.config,
        sac=replace(source.config.sac, batch=40),
        rehearsal=replace(source.config.rehearsal, rows=50, worth=40),
    )
    online = OnlineRisk(
        replace(source.model, rehearsal=jnp.asarray(fleet)),
        config,
        source.spaces,
        policy=lambda obs: np.full((len(obs), 1), 0.5),
    )
    for _ in range(40):
        online.add(np.ones(1, np.float32), np.array([0.0]), np.ones(1), 0.0, False, np.ones(1))
    seen = []
    monkeypatch.setattr(
        "safemesa.shield.online._update",
        lambda learner, layout, state, rows, key: (seen.append(np.array(rows)), (state, {}))[1],
    )
    online.learn()
    (rows,) = seen
    is_own = online._column(rows, "obs")[:, 0] != 0.0
    assert 0 < is_own.sum() < 40
    proposal = source.spaces.to_unit(np.array([0.5]))[0]
    np.testing.assert_allclose(online._column(rows, "next_action")[is_own], proposal)
    np.testing.assert_allclose(online._column(rows, "next_action")[~is_own], -0.25)


def test_a_missing_cost_is_an_error(tmp_path: Path) -> None:
    online, shield, _ = probe(tmp_path)

    class NoCost(gymnasium.Wrapper):
        def step(self, action: Any) -> Any:
            *rest, _ = self.env.step(action)
            return (*rest, {})

    env = ShieldWrapper(NoCost(gymnasium.make("safemesa/ProbeTask-v0")), shield, online=online)
    env.reset(seed=0)
    with pytest.raises(ConfigurationError, match="cost"):
        env.step(np.zeros(1, np.float32))


# -- vectors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_vectors_are_single_environments_side_by_side(
    navigation: Path, mode: AutoresetMode
) -> None:
    """Equal decisions and steps, over resets, in every autoreset mode."""
    count, length = 3, 150
    envs = SyncVectorEnv(
        [lambda: gymnasium.make("safemesa/Navigation2-v0")] * count, autoreset_mode=mode
    )
    vector = VectorShieldWrapper(envs, Shield.load(navigation, mode="enforce"))
    obs, _ = vector.reset(seed=5)
    told: list[list[tuple]] = [[] for _ in range(count)]
    resets = np.zeros(count, bool)
    for _ in range(length):
        obs, _, terminated, truncated, info = vector.step(towards_the_goal(obs))
        np.testing.assert_array_equal(info["_shield_risk"], ~resets)
        for i in np.flatnonzero(~resets):
            told[i].append((info["shield_risk"][i], info["shield_reason"][i]))
        ended = terminated | truncated
        if mode == AutoresetMode.NEXT_STEP:
            resets = ended
        if mode == AutoresetMode.DISABLED and ended.any():
            obs, _ = vector.reset(options={"reset_mask": ended})
    for index in range(count):
        single = ShieldWrapper(
            gymnasium.make("safemesa/Navigation2-v0"), Shield.load(navigation, mode="enforce")
        )
        obs, _ = single.reset(seed=5 + index)
        for risk, reason in told[index]:
            obs, _, terminated, truncated, info = single.step(towards_the_goal(obs))
            assert (info["shield_risk"], info["shield_reason"]) == (risk, reason)
            if terminated or truncated:
                obs, _ = single.reset()


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_no_stored_transition_crosses_a_reset(tmp_path: Path, mode: AutoresetMode) -> None:
    """Episodes of the probe start at 1 and end at 0 or 2 after one step."""
    online, shield, _ = probe(tmp_path)
    envs = SyncVectorEnv([lambda: gymnasium.make("safemesa/ProbeTask-v0")] * 4, autoreset_mode=mode)
    vector = VectorShieldWrapper(envs, shield, online=online)
    rng = np.random.default_rng(0)
    vector.reset(seed=0)
    for _ in range(40):
        vector.step(rng.uniform(-1.0, 1.0, (4, 1)).astype(np.float32))
    rows = online._rows[: online.size]
    assert online.size == (80 if mode == AutoresetMode.NEXT_STEP else 160)
    np.testing.assert_array_equal(online._column(rows, "obs"), np.ones((len(rows), 1)))
    next_obs, cost = online._column(rows, "next_obs"), online._column(rows, "cost")
    np.testing.assert_array_equal(np.abs(next_obs - 1.0), np.ones_like(next_obs))
    np.testing.assert_array_equal(cost, next_obs == 0.0)
    assert online._column(rows, "terminated").all()
