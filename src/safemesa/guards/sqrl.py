"""SQRL: the task policy is restricted to actions that the critic calls safe."""

from dataclasses import dataclass, field
from typing import final

from safemesa.core.types import Key, PyTree
from safemesa.guards.base import Decision, Situation
from safemesa.guards.duals import AbstractLagrangian
from safemesa.guards.rejection import first_safe
from safemesa.guards.settings import SQRLSettings


@final
@dataclass(frozen=True, kw_only=True)
class SQRL(AbstractLagrangian):
    """Srinivasan et al. 2020 (arXiv 2010.14603): rejection sampling and a Lagrangian.

    Differences from the published code and from Recovery RL's port of it:

    - Both weight safe samples by the policy's density although they were drawn from it, which is
      sampling from its square; here the choice is uniform, as rejection sampling is.
    - Where no sample is safe the least risky runs, as there; the published code first widens the
      policy, up to six times.
    - The actor's term has a gradient. In the published code it is cut off, so that only the masking
      acts; in the port its price is constant (`DualAscent`).
    - The critic bootstraps from the task policy without the mask, as in the port and in every other
      arm here; in the paper from the masked policy.
    - The critic's loss is the one of all arms; the paper's cross-entropy is `--risk.loss bce`.
    """

    settings: SQRLSettings = field(default_factory=SQRLSettings)

    def select_action(self, state: PyTree, situation: Situation, *, key: Key) -> Decision:
        """The first of `samples` draws that is safe enough, else the least risky."""
        del state
        return first_safe(situation, self.settings.risk_limit, self.settings.samples, key=key)
