"""Every preset of every domain configures every arm, and says what the paper's tables say."""

import pytest

from safemesa.core.errors import ConfigurationError
from safemesa.domains.registry import domain, domain_names
from safemesa.experiments.arms import ARMS, configure
from safemesa.phases.agent_kinds import make_agent
from safemesa.phases.config import RunConfig, config_from_json, config_to_json
from safemesa.phases.presets import DOMAIN_PRESETS, PRESETS, preset_config

TABLES = {
    # domain: (training tasks, iterations, M, RRL's steps, gamma_risk, risk limit)
    "navigation1": (24, 10_000, 100, 2_000, 0.8, 0.3),
    "navigation2": (25, 10_000, 100, 2_000, 0.65, 0.1),
    "cartpole": (20, 10_000, 500, 10_000, 0.8, 0.1),
    "halfcheetah": (4, 15_000, 500, 10_000, 0.8, 0.1),
    "halfcheetah_partial": (4, 15_000, 500, 10_000, 0.8, 0.1),
    "ant": (3, 15_000, 500, 10_000, 0.8, 0.3),
}


def test_every_domain_of_the_paper_has_presets() -> None:
    assert set(DOMAIN_PRESETS) == set(domain_names())


@pytest.mark.parametrize("name", DOMAIN_PRESETS)
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_configure_every_arm(name: str, preset: str) -> None:
    found = domain(name)
    for arm in ARMS:
        config = configure(arm, name, preset)
        assert (config.domain, config.preset, config.arm) == (name, preset, arm)
        assert config_from_json(RunConfig, config_to_json(config)) == config
        make_agent(config, found.spaces)


@pytest.mark.parametrize("name", TABLES)
def test_paper_presets_have_the_numbers_of_the_tables(name: str) -> None:
    config = preset_config(name, "paper")
    found = (
        config.data.train_tasks,
        config.meta.iterations,
        config.adapt.steps,
        config.adapt.scratch_steps,
        config.risk.gamma_risk,
        config.risk_limit,
    )
    assert found == TABLES[name]
    assert config.risk.hidden == config.sac.hidden == (256, 256)
    assert config.sac.batch == 256


def test_a_domain_of_the_users_own_has_settings() -> None:
    config = preset_config("my_robots:WALKERS", "cpu")
    assert config.domain == "my_robots:WALKERS"
    assert config.data.train_policy == "auto"


def test_files_without_newer_fields_are_read_with_their_defaults() -> None:
    config = preset_config("navigation1", "paper")
    values = config_to_json(config)
    del values["deploy"]["steps"], values["data"]["train_policy"]
    assert config_from_json(RunConfig, values) == config


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="Did you mean 'halfcheetah'"):
        preset_config("halfchetah", "paper")
    with pytest.raises(ConfigurationError, match="paper, cpu, quick"):
        preset_config("maze", "papers")
