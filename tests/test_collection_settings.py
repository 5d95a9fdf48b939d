"""What decides training logs, and who is asked about risk: settings that must not be mixed up."""

from dataclasses import replace
from pathlib import Path

import pytest
from tiny import tiny_config

from safemesa.core.errors import ConfigurationError, DatasetError
from safemesa.domains.registry import domain
from safemesa.experiments.arms import configure
from safemesa.experiments.measures.calibrate_runs import runs_with_critics
from safemesa.guards import asks_a_critic
from safemesa.phases.agent_kinds import make_agent
from safemesa.phases.collection.logs import (
    OtherCollectionWarning,
    _check_collection,
    collection_settings,
    load_or_collect_train,
)
from safemesa.phases.collection.sac import _collection_config
from safemesa.phases.progress import NoProgress

ROOT = Path(__file__).resolve().parents[1]


def test_logs_that_were_collected_otherwise_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("mujoco")
    cartpole, config = domain("cartpole"), tiny_config("multitask", "cartpole")
    data = replace(config.data, train_tasks=2, train_transitions=60, train_policy="random")
    config = replace(config, data=data)
    load_or_collect_train(cartpole, config, tmp_path, NoProgress())
    load_or_collect_train(cartpole, config, tmp_path, NoProgress())
    other = replace(config, data=replace(data, train_policy="sac"))
    with pytest.raises(DatasetError, match=r"'random', and this run wants 'sac'.*--data-dir"):
        load_or_collect_train(cartpole, other, tmp_path, NoProgress())


def test_other_settings_of_sac_on_the_same_logs_are_told(tmp_path: Path) -> None:
    """They may be meant; the normaliser, which the collection has not, is no such setting."""
    there = collection_settings(domain("cartpole"), configure("mesa", "cartpole", "cpu"))
    config = configure("mesa", "cartpole", "cpu")
    same = replace(config, sac=replace(config.sac, normalise_obs=True))
    _check_collection(tmp_path, there, collection_settings(domain("cartpole"), same))
    other = replace(config, sac=replace(config.sac, warmup_steps=7))
    with pytest.warns(OtherCollectionWarning, match="used as they are"):
        _check_collection(tmp_path, there, collection_settings(domain("cartpole"), other))


def test_a_collection_is_the_same_whatever_run_begins_it() -> None:
    """Arms and points of Figure 6a have test logs of other sizes."""
    mesa, oracle = (configure(arm, "halfcheetah", "cpu") for arm in ("mesa", "oracle"))
    assert mesa.data.test_transitions != oracle.data.test_transitions
    assert _collection_config(mesa, 1) == _collection_config(replace(oracle, seed=4), 1)


def test_a_normaliser_is_not_asked_of_an_arm_that_has_none() -> None:
    spaces = domain("navigation2").spaces
    for arm in ("mesa", "unconstrained", "reward_penalty"):
        config = tiny_config(arm)
        config = replace(config, sac=replace(config.sac, normalise_obs=True))
        if arm == "mesa":
            make_agent(config, spaces)
            continue
        with pytest.raises(ConfigurationError, match=r"sac.normalise-obs .* Leave it out"):
            make_agent(config, spaces)


def test_arms_without_a_critic_are_not_calibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of committed runs only numbers are kept.
    monkeypatch.setattr(
        "safemesa.experiments.measures.calibrate_runs._has_prior", lambda record: True
    )
    assert not asks_a_critic("penalty")
    assert asks_a_critic("a guard of the user's")
    arms = {config.arm for config, _ in runs_with_critics([ROOT / "results" / "comparisons_cpu"])}
    assert {"mesa", "rrl", "maml+sqrl"} <= arms
    assert not {"reward_penalty", "unconstrained", "carl"} & arms
