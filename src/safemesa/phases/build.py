"""From a configuration to learners, fresh networks and random keys."""

import math
from dataclasses import dataclass

from safemesa.core.errors import ConfigurationError
from safemesa.core.spaces import Spaces
from safemesa.core.streams import Stream, root_key
from safemesa.core.types import Key
from safemesa.guards.base import AbstractGuard
from safemesa.guards.registry import guards
from safemesa.learners.config import SamplingConfig
from safemesa.learners.meta.base import AbstractMetaLearner
from safemesa.learners.meta.registry import meta_learners
from safemesa.learners.recovery.base import AbstractRecovery
from safemesa.learners.recovery.registry import make_recovery
from safemesa.learners.risk import RiskLearner, RiskTerm, no_risk_term
from safemesa.learners.targets import make_target
from safemesa.networks.critics import RiskCritic
from safemesa.phases.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class Learners:
    """What Phase 1 or 2 asks about learning; hashable, hence jit-static."""

    meta: AbstractMetaLearner
    risk: RiskLearner
    """Of the phase: in Phase 1 for the recovery policy alone."""
    risk_term: RiskTerm
    """The guard's addition to the safety loss."""
    sampling: SamplingConfig


def prior_learners(config: RunConfig) -> Learners:
    """What Phase 1 asks.

    Raises:
        ConfigurationError: an unknown name.
    """
    return Learners(
        meta=_meta_learner(config),
        risk=risk_learner(config, 1.0, config.meta.recovery_rate),
        risk_term=risk_term(config),
        sampling=config.sampling,
    )


def adaptation_learners(config: RunConfig) -> Learners:
    """What Phase 2 asks.

    Raises:
        ConfigurationError: an unknown name.
    """
    return Learners(
        meta=_meta_learner(config),
        risk=risk_learner(config, config.adapt.target_rate, config.adapt.learning_rate),
        risk_term=risk_term(config),
        sampling=config.sampling,
    )


def risk_learner(config: RunConfig, target_rate: float, learning_rate: float) -> RiskLearner:
    """Critic and recovery policy, with the rates of a phase."""
    return RiskLearner(
        config=config.risk,
        target_rate=target_rate,
        learning_rate=learning_rate,
        target=make_target(config.target),
        recovery=config.recovery,
    )


def make_guard(config: RunConfig) -> AbstractGuard:
    """The guard with its settings.

    Raises:
        ConfigurationError: unknown.
    """
    return guards[config.guard](settings=config.guard_settings)


def adds_to_safety_loss(config: RunConfig) -> bool:
    """Whether the guard has a say in Phases 1 and 2."""
    return guards[config.guard].risk_term is not AbstractGuard.risk_term


def risk_term(config: RunConfig) -> RiskTerm:
    """The guard's addition to the safety loss; of guards without one, the same for all."""
    return make_guard(config).risk_term if adds_to_safety_loss(config) else no_risk_term


def _meta_learner(config: RunConfig) -> AbstractMetaLearner:
    kind = meta_learners[config.meta_learner]
    return kind(settings=config.meta, risk=config.risk, target=make_target(config.target))


def check_horizon(config: RunConfig, spaces: Spaces) -> None:
    """Refuses a horizon in seconds that nobody has turned into the discount.

    Raises:
        ConfigurationError: it is not.
    """
    seconds, discount = config.risk.horizon, config.risk.gamma_risk
    if seconds is not None and not math.isclose(discount, 1.0 - spaces.dt / seconds, abs_tol=1e-9):
        raise ConfigurationError(
            f"risk.horizon is {seconds:g} s, which at steps of {spaces.dt:g} s is gamma_risk "
            f"{1.0 - spaces.dt / seconds:.6g}, but gamma_risk is {discount:.6g}. Give gamma_risk "
            "alone, or set it by `gamma_of_horizon(seconds, dt)`, as the command line does."
        )


def fresh_risk_networks(config: RunConfig, spaces: Spaces) -> tuple[RiskCritic, AbstractRecovery]:
    """Critic and recovery policy of a run seed: the same initialisation in every arm.

    Raises:
        ConfigurationError: the horizon in seconds is not what the discount says.
    """
    check_horizon(config, spaces)
    key_critic = root_key(config.seed, Stream.CRITIC)
    key_recovery = root_key(config.seed, Stream.RECOVERY)
    sizes = (spaces.obs_size, spaces.action_size, config.risk.hidden)
    critic = RiskCritic(*sizes, critics=config.risk.critics, key=key_critic)
    if config.risk.initial is not None:
        critic = critic.shifted_to(config.risk.initial)
    return critic, make_recovery(config.recovery, config.risk, spaces, key=key_recovery)


def task_learner_key(config: RunConfig) -> Key:
    """The key of SAC's initial networks: the same in every arm."""
    return root_key(config.seed, Stream.TASK_LEARNER)
