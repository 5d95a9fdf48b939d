"""The words of the project as types: batches, keys and metrics."""

from typing import Any, NamedTuple

from jaxtyping import Array, Float, PRNGKeyArray

Key = PRNGKeyArray
Metrics = dict[str, Array]
"""Scalars that an update reports. Maths returns them; only the phases write them anywhere."""

PyTree = Any


class RiskBatch(NamedTuple):
    """What the safety critic and the recovery policy learn from.

    Observations are already normalised and actions already scaled to [-1, 1]. `next_action` is the
    action of the policy whose risk is learned: a draw of the reference policy or the logged action
    in Phases 1 and 2, a draw of the task policy in Phase 3. `policy_action` is a draw at `obs` that
    some guards need: of the uniform policy in Phases 1 and 2, of the task policy in Phase 3.
    `recovery_action` is the recovery's at `next_obs`, where the target asks for it.
    """

    obs: Float[Array, "... obs"]
    action: Float[Array, "... act"]
    cost: Float[Array, "..."]
    next_obs: Float[Array, "... obs"]
    next_action: Float[Array, "... act"]
    terminated: Float[Array, "..."]
    policy_action: Float[Array, "... act"]
    recovery_action: Float[Array, "... act"] | None = None


class TaskBatch(NamedTuple):
    """What the task policy learns from. Actions are scaled to [-1, 1]."""

    obs: Float[Array, "... obs"]
    action: Float[Array, "... act"]
    reward: Float[Array, "..."]
    next_obs: Float[Array, "... obs"]
    terminated: Float[Array, "..."]
