"""What a critic bootstraps with, who recovers, and what a takeover's limit is, by known answers."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import final

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from handmade import constant_recovery, logistic_critic, risk_batch, sigmoid
from hypothesis import given, settings, strategies as st
from shields import SPACES, make_source
from tiny import tiny_config

from safemesa.core.errors import CheckpointError, ConfigurationError, DatasetError
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.datasets.task_log import TaskLog
from safemesa.guards import Situation, Takeover
from safemesa.guards.settings import TakeoverSettings
from safemesa.guards.takeover import TakeoverState
from safemesa.learners.config import RehearsalConfig, RiskConfig, TargetConfig
from safemesa.learners.recovery import (
    AbstractRecovery,
    FixedAction,
    RecoveryNetwork,
    make_recovery,
    recoveries,
)
from safemesa.learners.recovery.settings import (
    FixedSettings,
    NetworkSettings,
    RecoverySettings,
)
from safemesa.learners.risk import risk_target, with_recovery_actions
from safemesa.learners.targets import make_target
from safemesa.networks.normaliser import identity_normaliser
from safemesa.phases import adapt as adapt_phase
from safemesa.phases.api import adapt, collect_test, collect_train, meta_train
from safemesa.phases.horizon import LONGEST, suggested_horizon
from safemesa.phases.presets.own_method import gamma_of_horizon
from safemesa.phases.rehearsal import calm_rows, draw_rehearsal, rehearsal_layout
from safemesa.phases.storage.artefacts import (
    Prior,
    RiskModel,
    load_prior,
    load_risk_model,
    prior_template,
    save_artefact,
)
from safemesa.phases.takeover_limit import FoundLimit, find_limit, fleet_level
from safemesa.shield import runtime
from safemesa.shield.export import ShieldOptions, export_shield

GAMMA = 0.9
LINE = replace(
    SPACES,
    obs_names=("x",),
    action_names=("push",),
    action_low=(-1.0,),
    action_high=(1.0,),
)
CRITIC = logistic_critic((0.5, 2.0, -0.3))
BATCH = risk_batch(
    obs=[[0.0], [0.1], [0.2]],
    action=[[0.0], [0.0], [0.0]],
    cost=[0.0, 1.0, 0.0],
    next_obs=[[1.0], [2.0], [-1.0]],
    next_action=[[0.4], [0.4], [0.4]],
    terminated=[0.0, 1.0, 0.0],
)


def risk_at(obs: float, action: float) -> float:
    return float(sigmoid(0.5 * obs + 2.0 * action - 0.3))


@pytest.mark.parametrize("rho", [0.0, 0.3, 1.0])
def test_a_mixture_is_the_risk_of_recovering_with_a_probability(rho: float) -> None:
    target = make_target(TargetConfig(kind="mixture", recovers=rho))
    batch = with_recovery_actions(BATCH, target, constant_recovery(-1.0), CRITIC)
    found = risk_target(CRITIC, batch, GAMMA, target)
    recovered = float(np.tanh(-1.0))
    wanted = [
        GAMMA * (rho * risk_at(obs, recovered) + (1.0 - rho) * risk_at(obs, 0.4))
        for obs in (1.0, -1.0)
    ]
    np.testing.assert_allclose(np.asarray(found), [wanted[0], 1.0, wanted[1]], rtol=1e-5)


def test_the_least_risk_is_that_of_the_safer_action() -> None:
    target = make_target(TargetConfig(kind="least"))
    batch = with_recovery_actions(BATCH, target, constant_recovery(2.0), CRITIC)
    wanted = [GAMMA * risk_at(1.0, 0.4), 1.0, GAMMA * risk_at(-1.0, 0.4)]
    np.testing.assert_allclose(
        np.asarray(risk_target(CRITIC, batch, GAMMA, target)), wanted, rtol=1e-5
    )


def test_nobody_computes_recovery_actions_that_are_not_asked_for() -> None:
    sampled = make_target(TargetConfig())
    assert with_recovery_actions(BATCH, sampled, constant_recovery(0.0), CRITIC) is BATCH
    with pytest.raises(ConfigurationError, match="mixture"):
        make_target(TargetConfig(kind="mixtur"))


def test_the_logit_has_a_gradient_where_the_risk_has_none() -> None:
    lost = logistic_critic((0.0, 1.0, 40.0))
    policy, obs, risk = constant_recovery(0.5), jnp.zeros((4, 1)), RiskConfig()

    def size(objective: str) -> float:
        config = NetworkSettings(objective=objective, penalty=0.0)
        grads = jax.grad(lambda p: p.loss(lost, obs, obs, config, risk))(policy)
        return float(jnp.abs(grads.network.biases[-1]).sum())

    assert size("risk") == 0.0
    np.testing.assert_allclose(size("logit"), 1.0 - np.tanh(0.5) ** 2, rtol=1e-5)


def test_a_fixed_action_is_given_in_physical_units() -> None:
    config = FixedSettings(action=(-2.0, 0.75))
    brake = make_recovery(config, RiskConfig(), SPACES, key=jax.random.key(0))
    action, memory = brake.act(CRITIC, jnp.zeros(3), brake.begin())
    np.testing.assert_allclose(np.asarray(action), [-1.0, 0.5], atol=1e-7)
    assert memory == ()
    assert brake.exported(SPACES) == {"kind": "fixed", "action": [-2.0, 0.75]}
    wrong = replace(config, action=(-2.0,))
    with pytest.raises(ConfigurationError, match="2 numbers"):
        make_recovery(wrong, RiskConfig(), SPACES, key=jax.random.key(0))


# -- the guard --------------------------------------------------------------------------------


def decide(guard: Takeover, limit: float, proposed: float, recovery: AbstractRecovery):
    situation = Situation(
        CRITIC, recovery, jnp.zeros(1), jnp.full(1, proposed), lambda key: jnp.zeros(1)
    )
    state = guard.begin(jnp.asarray(limit, jnp.float32), jnp.ones(()))
    return guard.select_action(state, situation, key=jax.random.key(0))


def quiet(**settings) -> Takeover:
    return Takeover(settings=TakeoverSettings(recovery_noise=0.0, **settings))


def test_takeover_keeps_the_proposal_up_to_its_limit() -> None:
    guard, recovery = quiet(), constant_recovery(-1.0)
    risk = risk_at(0.0, 0.4)
    kept = decide(guard, risk + 1e-4, 0.4, recovery)
    taken = decide(guard, risk - 1e-4, 0.4, recovery)
    assert not bool(kept.intervened)
    assert bool(taken.intervened)
    assert float(kept.action[0]) == pytest.approx(0.4)
    assert float(taken.action[0]) == pytest.approx(np.tanh(-1.0))
    assert float(taken.task_action[0]) == pytest.approx(0.4)


def test_of_the_actions_that_are_safe_enough_the_nearest_to_the_proposal_runs() -> None:
    guard = quiet(candidates=3, told="executed")
    recovery = constant_recovery(-20.0)  # action -1
    # Candidates at 0.5, 0 and -0.5 between the proposal 1 and the recovery's -1.
    limit = risk_at(0.0, 0.0) + 1e-4
    found = decide(guard, limit, 1.0, recovery)
    assert float(found.action[0]) == pytest.approx(0.0, abs=1e-6)
    assert float(found.task_action[0]) == pytest.approx(0.0, abs=1e-6)
    nothing_safe = decide(guard, 1e-6, 1.0, recovery)
    assert float(nothing_safe.action[0]) == pytest.approx(-1.0)


def test_a_charge_falls_on_proposals_above_the_limit() -> None:
    guard = quiet(charge=3.0)
    state = guard.begin(jnp.asarray(risk_at(0.0, 0.0), jnp.float32), jnp.ones(()))
    actions = jnp.asarray([[-0.5], [0.5]])
    charged = guard.reward_term(state, CRITIC, jnp.zeros((2, 1)), actions, jnp.zeros(2))
    np.testing.assert_array_equal(np.asarray(charged), [0.0, -3.0])


def test_the_limit_follows_the_level_of_calm_states() -> None:
    """The level goes to the quantile of a known distribution; the limit follows it down, not up."""
    guard = quiet(calm_share=0.9)
    state = guard.begin(jnp.asarray(0.1), jnp.asarray(0.05))
    rng = np.random.default_rng(0)

    @jax.jit
    def steps(state: TakeoverState, draws: jax.Array) -> TakeoverState:
        def step(state: TakeoverState, draw: jax.Array) -> tuple[TakeoverState, None]:
            return guard.follow(state, draw, jnp.ones(draw.shape)), None

        return jax.lax.scan(step, state, draws)[0]

    draws = rng.uniform(0.0, 0.01, (8000, 64)).astype(np.float32)
    state = steps(state, jnp.asarray(draws))
    assert float(state.level) == pytest.approx(0.009, rel=0.03)
    assert float(state.limit / state.level) == pytest.approx(2.0, rel=1e-3)
    risen = steps(state, jnp.asarray(100.0 * draws))
    assert float(risen.level) == pytest.approx(0.9, rel=0.03)
    assert float(risen.limit) == pytest.approx(0.1)


def test_rows_that_are_not_calm_and_given_limits_move_nothing() -> None:
    state = quiet().begin(jnp.asarray(0.1), jnp.asarray(0.05))
    follows = quiet().follow(state, jnp.ones(4), jnp.zeros(4))
    fixed = quiet(risk_limit=0.1)
    assert float(follows.limit) == pytest.approx(0.1)
    assert fixed.follow(state, jnp.ones(4), jnp.ones(4)) is state


# -- logs -------------------------------------------------------------------------------------


def make_log(cost: list[int], episode: list[int], name: str = "log") -> TaskLog:
    count = len(cost)
    obs = np.arange(count, dtype=np.float32)[:, None]
    return TaskLog(
        name=name,
        role="train",
        columns={
            "obs": obs,
            "action": np.zeros((count, 1), np.float32),
            "next_obs": obs + 1.0,
            "reward": np.zeros(count, np.float32),
            "cost": np.asarray(cost, np.float32),
            "terminated": np.zeros(count, np.bool_),
            "truncated": np.zeros(count, np.bool_),
            "episode": np.asarray(episode, np.int32),
            "step": np.arange(count, dtype=np.int32),
        },
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_safe_starts_and_steps_to_violation_are_those_of_a_loop(
    rows: list[tuple[bool, bool]],
) -> None:
    cost = [int(violates) for violates, _ in rows]
    episode = np.cumsum([int(new) for _, new in rows]).tolist()
    log = make_log(cost, episode)
    safe, never = [], np.iinfo(np.int64).max
    steps = np.full(len(cost), never)
    for row in range(len(cost)):
        begins = row > 0 and episode[row - 1] == episode[row] and cost[row - 1] == 1
        safe += [] if begins else [row]
        for later in range(row, len(cost)):
            if episode[later] != episode[row]:
                break
            if cost[later]:
                steps[row] = later - row
                break
    assert log.safe_starts.tolist() == safe
    np.testing.assert_array_equal(log.steps_to_violation, steps)


def test_a_prior_carries_rows_of_its_logs_and_what_is_calm() -> None:
    config = tiny_config("safemesa")
    config = replace(config, rehearsal=RehearsalConfig(rows=60))
    data = collect_train(config)
    normaliser = identity_normaliser(2)
    rows = draw_rehearsal(data, config, normaliser)
    assert rows is not None
    columns = {k: np.asarray(v) for k, v in rehearsal_layout(data.spaces).unpack(rows).items()}
    assert columns["obs"].shape == (60, 2)
    known = {
        tuple(obs): bool(calm)
        for log in data.train
        for obs, calm in zip(
            np.asarray(log.columns["obs"], np.float32).tolist(),
            calm_rows(log, config.risk.gamma_risk).tolist(),
            strict=True,
        )
    }
    for obs, calm in zip(columns["obs"].tolist(), columns["calm"].tolist(), strict=True):
        assert known[tuple(obs)] is (calm > 0.5)
    assert draw_rehearsal(data, replace(config, rehearsal=RehearsalConfig()), normaliser) is None


def test_a_horizon_in_seconds_is_a_discount() -> None:
    assert gamma_of_horizon(2.0, 0.1) == pytest.approx(0.95)
    with pytest.raises(ConfigurationError, match="two steps"):
        gamma_of_horizon(0.15, 0.1)
    with pytest.raises(ConfigurationError, match="horizon"):
        RiskConfig(horizon=-1.0)


def test_the_suggested_horizon_is_the_memory_of_the_signals() -> None:
    """Signals of first order with autocorrelation phi^lag: their memory is -1 / log phi steps."""
    rng, count, memory = np.random.default_rng(0), 20_000, 40.0
    phi = np.exp(-1.0 / memory)
    signal = np.zeros((count, 1))
    for step in range(1, count):
        signal[step] = phi * signal[step - 1] + rng.normal(size=1)
    log = make_log([0] * count, [0] * count)
    log = replace(log, columns={**log.columns, "obs": signal.astype(np.float32)})
    data = OfflineTasks(domain="own", spaces=LINE, train=(log,), test=None, provenance={})
    assert suggested_horizon(data) / LINE.dt == pytest.approx(memory, rel=0.15)
    still = replace(log, columns={**log.columns, "obs": np.zeros((count, 1), np.float32)})
    calm = replace(data, train=(still,))
    assert 0 < suggested_horizon(calm) <= LONGEST * LINE.dt


# -- the limit --------------------------------------------------------------------------------


def model_of(recovery: AbstractRecovery) -> RiskModel:
    return RiskModel(CRITIC, recovery, identity_normaliser(1))


def test_the_limit_is_a_quantile_of_what_the_recovery_holds() -> None:
    config = tiny_config("safemesa")
    cost = [0] * 800 + [1]
    log = make_log(cost, [0] * 801)
    obs = np.linspace(-3.0, 3.0, 801, dtype=np.float32)[:, None]
    log = replace(log, columns={**log.columns, "obs": obs})
    found = find_limit(model_of(constant_recovery(-1.0)), config, log, LINE)
    calm = obs[:760, 0]  # within 40 steps of the violation nothing is calm
    risks = sigmoid(0.5 * calm + 2.0 * np.tanh(-1.0) - 0.3)
    assert found.source == "new robot"
    quantile = np.quantile(risks, config.guard_settings.calm_share)
    assert found.limit == pytest.approx(quantile, rel=5e-3)
    assert not found.tells_little
    same = RiskModel(
        logistic_critic((0.0, 0.0, -2.0)), constant_recovery(0.0), identity_normaliser(1)
    )
    assert find_limit(same, config, log, LINE).tells_little


def test_few_unlike_episodes_do_not_settle_a_limit() -> None:
    """Each is at one place, so the quantile hangs on how often each is drawn: its interval has a
    closed form. Many rows of alike episodes settle it, however they are resampled."""
    config = tiny_config("safemesa")
    config = replace(config, guard_settings=replace(config.guard_settings, calm_share=0.75))
    model = model_of(constant_recovery(-1.0))

    def found(places: Sequence[float]) -> FoundLimit:
        episode = np.repeat(np.arange(len(places)), 200)
        log = make_log([0] * len(episode), episode.tolist())
        obs = np.repeat(np.asarray(places, np.float32), 200)[:, None]
        return find_limit(model, config, replace(log, columns={**log.columns, "obs": obs}), LINE)

    def risk(place: float) -> float:
        return float(sigmoid(0.5 * place + 2.0 * np.tanh(-1.0) - 0.3))

    unlike = found([-3.0, -1.0, 1.0, 3.0])
    # The third of four draws is the lowest place with probability .051, the highest with .26.
    assert unlike.interval == pytest.approx((risk(-3.0), risk(3.0)), rel=1e-3)
    assert unlike.is_uncertain
    alike = found([0.0, 0.1] * 10)
    assert alike.interval == pytest.approx((risk(0.0), risk(0.1)), rel=0.06)
    assert not alike.is_uncertain
    assert alike.notes()["interval"] == list(alike.interval)


def test_a_log_that_cannot_tell_is_refused_with_a_reason() -> None:
    config = tiny_config("safemesa")
    log = make_log([0] * 20, [0] * 20)
    with pytest.raises(DatasetError, match="20 calm states"):
        find_limit(model_of(constant_recovery(-1.0)), config, log, LINE)
    afraid = RiskModel(
        logistic_critic((0.0, 0.0, 9.0)), constant_recovery(0.0), identity_normaliser(1)
    )
    long = make_log([0] * 900, [0] * 900)
    with pytest.raises(DatasetError, match="tells no danger"):
        find_limit(afraid, config, long, LINE)


# -- through the phases -----------------------------------------------------------------------


def test_limit_and_rehearsal_travel_with_the_artefacts(tmp_path: Path) -> None:
    config = tiny_config("safemesa")
    config = replace(config, rehearsal=RehearsalConfig(rows=100))
    prior = meta_train(config, collect_train(config))
    log = collect_test(config)
    save_artefact(tmp_path / "prior", prior, config, log.spaces, {})
    again, _, _ = load_prior(tmp_path / "prior")
    np.testing.assert_array_equal(np.asarray(again.model.rehearsal), prior.model.rehearsal)
    model = adapt(config, again, log)
    assert model.limit is not None
    save_artefact(tmp_path / "risk", model, config, log.spaces, {})
    loaded, _, _ = load_risk_model(tmp_path / "risk")
    assert float(loaded.limit) == float(model.limit)
    assert 0.0 < fleet_level(loaded, log.spaces, 0.95) <= 1.0
    damaged = tmp_path / "risk" / "rehearsal.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match="rehearsal"):
        load_risk_model(tmp_path / "risk")
    old = replace(prior_template(config, log.spaces).model, limit=None)
    save_artefact(tmp_path / "old", old, config, log.spaces, {})
    assert load_risk_model(tmp_path / "old")[0].limit is None


def test_seeds_side_by_side_adapt_to_logs_of_other_numbers_of_rows() -> None:
    """Rows that begin in a violation are left out, and logs have different numbers of them."""
    configs = [tiny_config("safemesa", seed=seed) for seed in (7, 8)]
    configs = [replace(one, rehearsal=RehearsalConfig(rows=100)) for one in configs]
    first = collect_test(configs[0])
    log = first.only_log()
    costs = np.zeros(log.transitions, np.float32)
    costs[50:60] = 1.0
    episode = np.zeros(log.transitions, np.int32)
    columns = {**log.columns, "cost": costs, "episode": episode}
    other = replace(first, test=replace(log, columns=columns))
    assert len(other.only_log().safe_starts) < len(log.safe_starts)
    prior = meta_train(configs[0], collect_train(configs[0]))
    both = adapt_phase.adapt(configs, [prior, prior], [first, other])
    assert all(0.0 < float(model.limit) < 1.0 for model in both)


@final
@recoveries.register("counting")
class Counting(AbstractRecovery):
    """Pushes by how many steps in a row it has driven: shows what is remembered."""

    step: jax.Array

    @classmethod
    def make(cls, config, risk, spaces, *, key) -> "AbstractRecovery":
        return cls(jnp.asarray(0.01))

    def begin(self):
        return jnp.zeros(())

    def act(self, critic, obs, memory):
        return jnp.full((2,), self.step * (memory + 1.0)), memory + 1.0


def test_a_recovery_remembers_within_a_takeover_and_an_episode() -> None:
    """Everything is taken over (limit 0), so an episode's actions count its steps."""
    config = tiny_config("scratch+takeover")
    config = replace(
        config,
        recovery=RecoverySettings(kind="counting"),
        guard_settings=TakeoverSettings(risk_limit=0.0, recovery_noise=0.0),
        deploy=replace(config.deploy, episodes=3, steps=60),
    )
    log = collect_test(config)
    model = prior_template(config, log.spaces).model
    assert adapt(config, Prior(model, prior_template(config, log.spaces).log_step_sizes), log)
    seen: list[float] = []
    from safemesa.domains.registry import domain as find_domain
    from safemesa.phases.deployment.deployment import make_deployment
    from safemesa.phases.deployment.guarded_sac import build_agent

    domain = find_domain("navigation2")
    agent = build_agent(config, domain.spaces)
    deployment = make_deployment(domain, agent, [config])
    state = deployment.start(0, replace(model, limit=jnp.zeros(())), log)
    (final_state,) = deployment.advance([state], lambda _, chunk: None)
    columns = agent.layout.unpack(final_state.replay.rows)
    first = final_state.replay.protected
    taken = np.asarray(columns["action"])[first : first + int(final_state.step), 0]
    ends = np.asarray(columns["terminated"])[first : first + int(final_state.step)] > 0.5
    count = 0
    for action, ended in zip(taken, ends, strict=True):
        count += 1
        seen.append(round(float(action) / 0.01))
        assert seen[-1] == min(count, 100)
        count = 0 if ended else count
        if count == 100:  # the horizon ends the episode, too
            count = 0
    assert max(seen) > 1


# -- the shield -------------------------------------------------------------------------------


def test_a_fixed_recovery_is_exported_and_runs(tmp_path: Path) -> None:
    source = make_source()
    brake = FixedAction(jnp.asarray([-1.0, 0.0]))
    source = replace(source, model=replace(source.model, recovery=brake, limit=jnp.zeros(())))
    export_shield(source, tmp_path / "shield", ShieldOptions(safe_action=(0.25, 0.5)))
    shield = runtime.Shield.load(tmp_path / "shield", mode="enforce")
    decision = shield.decide(np.zeros(3), [0.0, 0.5])
    assert decision.reason is runtime.Reason.RISK
    np.testing.assert_allclose(decision.action, [-2.0, 0.5])
    np.testing.assert_allclose(shield.recovery_actions(np.zeros((2, 3))), [[-2.0, 0.5]] * 2)
    assert runtime.check_folder(tmp_path / "shield")["risk_limit"] == 0.0


class Ramp(runtime.RememberingRecovery):
    """Brakes by a tenth more at each tick."""

    def begin(self) -> float:
        return 0.0

    def act(self, obs: np.ndarray, memory: float) -> tuple[list[float], float]:
        return [-0.1 * (memory + 1.0), 0.5], memory + 1.0


def test_a_recovery_of_the_users_own_comes_from_the_caller(tmp_path: Path) -> None:
    source = make_source()
    own = Counting(jnp.asarray(0.01))
    source = replace(source, model=replace(source.model, recovery=own, limit=jnp.zeros(())))
    export_shield(source, tmp_path / "shield", ShieldOptions(safe_action=(0.25, 0.5)))
    with pytest.raises(runtime.SettingsError, match="recovery="):
        runtime.Shield.load(tmp_path / "shield", mode="enforce")
    assert runtime.Shield.load(tmp_path / "shield", mode="monitor").mode == "monitor"
    shield = runtime.Shield.load(tmp_path / "shield", mode="enforce", recovery=Ramp())
    pushes = [float(shield.decide(np.zeros(3), [0.0, 0.5]).action[0]) for _ in range(3)]
    np.testing.assert_allclose(pushes, [-0.1, -0.2, -0.3])
    shield.reset()
    assert float(shield.decide(np.zeros(3), [0.0, 0.5]).action[0]) == pytest.approx(-0.1)


def test_a_network_is_made_by_name() -> None:
    made = make_recovery(NetworkSettings(), RiskConfig(hidden=(4,)), SPACES, key=jax.random.key(1))
    assert isinstance(made, RecoveryNetwork)
    with pytest.raises(ConfigurationError, match="netwrk"):
        make_recovery(RecoverySettings(kind="netwrk"), RiskConfig(), SPACES, key=jax.random.key(1))
