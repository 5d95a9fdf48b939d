"""From a configuration to learners, fresh networks and random keys."""

from dataclasses import dataclass

import jax

from safemesa.core.errors import ConfigurationError
from safemesa.core.spaces import Spaces
from safemesa.core.types import Key
from safemesa.guards import AbstractGuard, asks_a_critic, guards
from safemesa.learners.meta import AbstractMetaLearner, meta_learners
from safemesa.learners.recovery import AbstractRecovery, make_recovery
from safemesa.learners.risk import RiskLearner
from safemesa.learners.sac import SAC
from safemesa.learners.targets import make_target
from safemesa.networks.critics import RiskCritic
from safemesa.phases.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class Learners:
    """Everything that a configuration says about learning; hashable, hence jit-static."""

    meta: AbstractMetaLearner
    guard: AbstractGuard
    sac: SAC
    prior_recovery: RiskLearner
    """Recovery policy of Phase 1."""
    adaptation: RiskLearner
    """Critic and recovery policy of Phase 2."""
    deployment: RiskLearner
    """Critic and recovery policy of Phase 3."""


def build_learners(config: RunConfig, spaces: Spaces) -> Learners:
    """Looks names up and hands each learner its part of the configuration.

    Raises:
        ConfigurationError: an unknown meta-learner or guard, or one without a critic whose task
            learner is to see what a risk model normalised.
    """
    if config.sac.normalise_obs and config.agent == "sac" and not asks_a_critic(config.guard):
        raise ConfigurationError(
            f"sac.normalise-obs uses the normaliser of the risk model, which the guard "
            f"{config.guard!r} has not: the task learner of {config.arm} would see something else "
            "than that of the other arms. Leave it out."
        )

    target = make_target(config.target)

    def risk_learner(target_rate: float, learning_rate: float) -> RiskLearner:
        return RiskLearner(
            config=config.risk,
            target_rate=target_rate,
            learning_rate=learning_rate,
            target=target,
            recovery=config.recovery,
        )

    rate = config.risk.learning_rate
    guard = guards[config.guard]
    return Learners(
        meta=meta_learners[config.meta_learner](
            config=config.meta, risk=config.risk, target=target
        ),
        guard=guard(
            config=config.risk,
            settings=config.guard_settings,
            **{name: getattr(config, name) for name in guard.sections},
        ),
        sac=SAC(config=config.sac, obs_size=spaces.obs_size, action_size=spaces.action_size),
        prior_recovery=risk_learner(1.0, config.meta.recovery_rate),
        adaptation=risk_learner(config.adapt.target_rate, rate),
        deployment=risk_learner(config.deploy.target_rate, rate),
    )


def phase_key(seed: int, phase: str) -> Key:
    """The root key of one phase of one run."""
    phases = ("networks", "meta_train", "adapt", "deploy")
    return jax.random.fold_in(jax.random.key(seed), phases.index(phase))


def fresh_risk_networks(config: RunConfig, spaces: Spaces) -> tuple[RiskCritic, AbstractRecovery]:
    """Critic and recovery policy of a run seed: the same initialisation in every arm."""
    key_critic, key_recovery, _ = jax.random.split(phase_key(config.seed, "networks"), 3)
    sizes = (spaces.obs_size, spaces.action_size, config.risk.hidden)
    critic = RiskCritic(*sizes, critics=config.risk.critics, key=key_critic)
    return critic, make_recovery(config.recovery, config.risk, spaces, key=key_recovery)


def task_learner_key(config: RunConfig) -> Key:
    """The key of SAC's initial networks: the same in every arm."""
    return jax.random.split(phase_key(config.seed, "networks"), 3)[2]
