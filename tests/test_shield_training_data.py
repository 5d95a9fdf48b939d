"""A shield knows what it was trained on, and says when its robot has left that."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from shields import SAFE_ACTION, SPACES, edit_manifest, make_shield_folder, make_source

from safemesa.core.errors import CheckpointError, ConfigurationError
from safemesa.phases.rehearsal import rehearsal_layout
from safemesa.phases.storage.artefacts import RiskModel, save_artefact
from safemesa.phases.storage.seen import Seen, load_seen, save_seen, seen_in, together
from safemesa.shield.export import ShieldOptions, export_shield, find_source, shield_tensors
from safemesa.shield.runtime import OUTSIDE_POLICIES, Reason, Shield, check_folder
from safemesa.shield.training_data import describe_training_data

MIDDLE, SIZE = np.array([0.0, 0.5]), SPACES.obs_size


def fleet(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Observations that move slowly, are correlated, and fill no box; one signal rests."""
    rng = np.random.default_rng(seed)
    position = np.convolve(rng.normal(size=rows + 49), np.ones(50) / 50**0.5, "valid")
    velocity = 0.9 * position + 0.4 * rng.normal(size=rows)
    obs = np.stack([position - 1.0, velocity + 0.5, np.full(rows, 2.0)], axis=1)
    return obs.astype(np.float32), rng.uniform([-1.0, 0.2], [1.5, 0.8], (rows, 2)).astype("f4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its normaliser is not that of the data: what decides is what was seen."""
    source = replace(make_source(), seen=seen_in(*fleet(20_000)))
    return make_shield_folder(tmp_path_factory.mktemp("shields") / "s", source)


def shield_of(folder: Path, risk: float = 0.1, **load: Any) -> Shield:
    shield = Shield.load(folder, **{"mode": "enforce", **load})
    shield._risk = lambda: risk
    return shield


def share_outside(folder: Path, obs: np.ndarray, action: np.ndarray) -> float:
    shield = shield_of(folder)
    for row, one in zip(obs, action, strict=True):
        shield.decide(row, one)
    assert shield.tick == len(obs)
    return shield.outside_training / len(obs)


def test_data_like_the_training_data_are_hardly_ever_outside(folder: Path) -> None:
    assert share_outside(folder, *fleet(5000, seed=1)) < 0.005
    obs, _ = fleet(2000, seed=2)
    drawn = np.random.default_rng(0).uniform([-0.9, 0.25], [1.4, 0.75], (2000, 2))
    assert share_outside(folder, obs, drawn) < 0.005


@pytest.mark.parametrize("sigmas", [8.0, 20.0, 1e3, 1e8, 1e25])
def test_draws_outside_the_data_are_recorded(folder: Path, sigmas: float) -> None:
    obs, action = fleet(500)
    direction = np.random.default_rng(0).normal(size=(500, SIZE))
    direction /= np.linalg.norm(direction[:, :2], axis=1, keepdims=True)
    far = obs.mean(axis=0) + sigmas * obs.std(axis=0) * direction
    assert share_outside(folder, far, action) > 0.99


def test_three_sigma_of_data_that_end_there(tmp_path: Path) -> None:
    """Of a uniform square the corner is 2.4 standard deviations away: 3 are outside of it."""
    rng = np.random.default_rng(0)
    obs = rng.uniform(-1.0, 1.0, (4000, SIZE)).astype("f4")
    obs[:, 2] = 0.0
    action = np.full((4000, 2), MIDDLE, "f4")
    source = replace(make_source(), seen=seen_in(obs, action))
    folder = make_shield_folder(tmp_path / "s", source)
    angle = rng.uniform(0.0, 2.0 * np.pi, 1000)
    circle = np.stack([np.cos(angle), np.sin(angle), np.zeros(1000)], axis=1)
    # Each signal's range alone, or the distance alone, would let some of them pass.
    assert share_outside(folder, 3.0 / 3.0**0.5 * circle, action[:1000]) > 0.99
    assert share_outside(folder, 0.9 / 3.0**0.5 * circle, action[:1000]) == 0.0


def test_density_sees_what_ranges_do_not(folder: Path) -> None:
    """Each signal is within its range; together they never were."""
    obs, _ = fleet(20_000)
    low, high = np.quantile(obs, [0.02, 0.98], axis=0)
    shield = shield_of(folder)
    assert shield.decide([low[0], high[1], 2.0], MIDDLE).reason is Reason.OUTSIDE_TRAINING
    detail = shield.black_box.records[-1]["detail"]
    assert detail.startswith("outside_training: ")
    assert ">" in detail
    assert shield.decide([high[0], high[1], 2.0], MIDDLE).reason is Reason.OK


@pytest.mark.parametrize(
    ("obs", "action", "name"),
    [
        ([-1.0, 0.5, 5.0], MIDDLE, "angle"),
        ([-1.0, 0.5, 2.0], [-2.0, 0.5], "push"),
        ([-1.0, 0.5, 2.0], [0.0, 0.99], "turn"),
    ],
)
def test_a_signal_that_rested_and_an_action_never_tried_are_named(
    folder: Path, obs: list[float], action: Any, name: str
) -> None:
    shield = shield_of(folder)
    assert shield.decide(obs, action).reason is Reason.OUTSIDE_TRAINING
    assert shield.black_box.records[-1]["detail"] == f"outside_training: {name}"


FAR = np.array([50.0, -50.0, 2.0])


@pytest.mark.parametrize("policy", OUTSIDE_POLICIES)
def test_policies(tmp_path: Path, policy: str) -> None:
    source = replace(make_source(), seen=seen_in(*fleet(2000)))
    folder = make_shield_folder(tmp_path / "s", source, outside_training=policy)
    shield = shield_of(folder, recovery=lambda obs: [-1.0, 0.25])
    inside, proposed = [-1.0, 0.5, 2.0], np.array([1.0, 0.75])
    assert shield.decide(inside, proposed).reason is Reason.OK
    decision = shield.decide(FAR, proposed)
    halfway = 0.5 * (proposed + SAFE_ACTION)
    wanted = {"record": proposed, "slow": halfway, "recover": [-1.0, 0.25], "stop": SAFE_ACTION}
    np.testing.assert_allclose(decision.action, wanted[policy])
    assert decision.reason is Reason.OUTSIDE_TRAINING
    assert decision.overridden == (policy != "record")
    assert shield.decide(inside, proposed).reason is Reason.OK
    statistics = shield.statistics()
    assert statistics["outside_training"] == 1
    assert statistics["reasons"] == {"ok": 2, "outside_training": 1}
    assert not shield.black_box.records[-1]["fault"]
    for mode in ("monitor", "off"):
        passed = shield_of(folder, mode=mode).decide(FAR, proposed)
        np.testing.assert_array_equal(passed.action, proposed)
        assert (passed.reason is Reason.OUTSIDE_TRAINING) == (mode == "monitor")


def test_a_high_risk_outside_keeps_its_reason_and_is_counted(folder: Path) -> None:
    shield = shield_of(folder, risk=0.9)
    assert shield.decide(FAR, MIDDLE).reason is Reason.RISK
    assert shield.outside_training == 1
    assert "outside_training" in shield.black_box.records[-1]["detail"]


def test_the_policy_is_the_users_and_the_rest_is_not(folder: Path, tmp_path: Path) -> None:
    source = replace(make_source(), seen=seen_in(*fleet(500)))
    with pytest.raises(ConfigurationError, match="outside_training is 'pray'"):
        export_shield(source, tmp_path / "s", ShieldOptions(outside_training="pray"))
    copy = make_shield_folder(tmp_path / "copy", source)
    edit_manifest(copy, lambda m: m["shield"]["training"].update(policy="stop"))
    assert shield_of(copy).decide(FAR, MIDDLE).action.tolist() == list(SAFE_ACTION)


def test_check_and_card_say_where_the_data_end_while_hard_limits_are_unset(
    folder: Path, tmp_path: Path
) -> None:
    found = check_folder(folder)
    assert found["hard_limits"] == "not set on both sides for position, velocity, angle"
    assert found["outside_training"].startswith("policy record; trained on position -")
    assert "set hard limits" in found["outside_training"]
    card = (folder / "MODEL_CARD.md").read_text()
    assert "unlike the training data" in card
    assert "| angle | rad | 2 | 3 | 1.67 to 2.33 | - |" in card
    limited = make_shield_folder(tmp_path / "s", replace(make_source(), seen=seen_in(*fleet(99))))

    def limit(manifest: dict[str, Any]) -> None:
        for signal in manifest["shield"]["observations"]:
            signal.update(low=-9.0, high=9.0)

    edit_manifest(limited, limit)
    assert check_folder(limited)["hard_limits"] == "set for all signals"
    assert "set hard limits" not in check_folder(limited)["outside_training"]


@pytest.mark.parametrize("rows", [None, 1, 49])
def test_what_is_not_known_is_said(tmp_path: Path, rows: int | None) -> None:
    seen = None if rows is None else seen_in(*fleet(rows))
    folder = make_shield_folder(tmp_path / "s", replace(make_source(), seen=seen))
    assert json.loads((folder / "manifest.json").read_text())["shield"]["training"] is None
    assert "does not say what it was trained on" in check_folder(folder)["outside_training"]
    assert "Nothing notices" in (folder / "MODEL_CARD.md").read_text()
    assert shield_of(folder).decide(FAR, MIDDLE).reason is Reason.OK


def test_few_rows_of_many_signals_are_not_outside_themselves() -> None:
    """Held-out rows decide how far is too far, so a range of few rows is widened."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2200, 42)).astype("f4")
    seen = seen_in(rows[:200, :40], rows[:200, 40:])
    data = describe_training_data(seen, np.zeros(42), np.ones(42), 40)
    assert data is not None
    beyond = ((rows < data.low) | (rows > data.high)).any(axis=1)
    distance = np.linalg.norm((rows[:, :40] - data.centre) @ data.axes, axis=1)
    assert np.mean(beyond | (distance > data.distance)) < 0.02


def test_a_shield_of_new_weights_still_knows_its_data(folder: Path) -> None:
    shield = shield_of(folder)
    shield.replace_weights(shield_tensors(make_source(seed=3).model))
    assert shield.decide(FAR, MIDDLE).reason is Reason.OUTSIDE_TRAINING
    fork = shield.fork()
    fork.decide(FAR, MIDDLE)
    assert fork.outside_training == 1


# -- what artefacts carry ---------------------------------------------------------------------


def test_what_was_seen_lies_beside_the_artefact(tmp_path: Path) -> None:
    first, second = seen_in(*fleet(9000)), seen_in(*fleet(300, seed=5))
    both = together([first, second])
    assert 4000 < len(both.rows) < 4800
    obs, action = fleet(9000)
    np.testing.assert_array_equal(first.low, np.concatenate([obs, action], axis=1).min(axis=0))
    save_seen(tmp_path, both)
    for given, wanted in zip(load_seen(tmp_path, 5) or (), both, strict=True):
        np.testing.assert_array_equal(given, wanted)
    assert load_seen(tmp_path / "older", 5) is None
    with pytest.raises(CheckpointError, match="other signals"):
        load_seen(tmp_path, 4)
    data = bytearray((tmp_path / "seen.safetensors").read_bytes())
    data[-1000] ^= 1
    (tmp_path / "seen.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        load_seen(tmp_path, 5)


def test_the_export_finds_what_was_seen_also_in_rehearsal_rows(tmp_path: Path) -> None:
    source = make_source(tuple(make_source().config.risk.hidden))
    save_seen(tmp_path / "risk", seen_in(*fleet(400)))
    save_artefact(tmp_path / "risk", source.model, source.config, SPACES, {})
    found = find_source(tmp_path / "risk").seen
    assert isinstance(found, Seen)
    assert len(found.rows) == 400
    rows = np.zeros((60, rehearsal_layout(SPACES).width), np.float32)
    rows[:, 0] = 1.0
    model: RiskModel = replace(source.model, rehearsal=jnp.asarray(rows))
    save_artefact(tmp_path / "older", model, source.config, SPACES, {})
    found = find_source(tmp_path / "older").seen
    assert found is not None
    # Mean -1, standard deviation .5; the middle of the actions.
    np.testing.assert_allclose(found.rows[0], [-0.5, 0.5, 2.0, 0.0, 0.5])
