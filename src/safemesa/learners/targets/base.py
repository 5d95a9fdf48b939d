"""What a target is: the policy whose risk a safety critic learns.

A new target is one final class in one file of this folder: subclass `AbstractTarget`, register it
by name, import it in `targets/__init__.py`.
"""

import abc
from dataclasses import dataclass, field
from typing import ClassVar

from jaxtyping import Array, Float

from safemesa.core.types import RiskBatch
from safemesa.learners.config import TargetConfig
from safemesa.networks.critics import RiskCritic


@dataclass(frozen=True, kw_only=True)
class AbstractTarget(abc.ABC):
    """How risky the next state is: `y = c + (1 - c)(1 - terminated) gamma_risk next_risk`."""

    config: TargetConfig = field(default_factory=TargetConfig)
    asks_recovery: ClassVar[bool] = False
    """Whether `batch.recovery_action` is read; where it is not, nobody computes it."""

    @property
    def recovery_share(self) -> float | None:
        """The probability that a step is the recovery's, else a draw of the policy.

        None, as here: the risk is of no policy that can be rolled out so; calibration refuses it.
        """
        return None

    @abc.abstractmethod
    def next_risk(self, critic: RiskCritic, batch: RiskBatch) -> Float[Array, " batch"]:
        """Risk of `batch.next_obs` by the critic that bootstraps; no gradient is taken of it."""


def recovery_actions(batch: RiskBatch) -> Float[Array, "batch act"]:
    """Those of a batch that has them (`learners.risk.with_recovery_actions`)."""
    assert batch.recovery_action is not None
    return batch.recovery_action
