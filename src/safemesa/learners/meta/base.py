"""What a meta-learner is, and the inner loop that Phases 1 and 2 share.

A new meta-learner is one final class: subclass `AbstractMetaLearner`, and register it from your own
code (docs/add_a_meta_learner.md). One of ours is a file of this folder and an entry in its
`registry.py`.
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from safemesa.core.types import Metrics, PyTree, RiskBatch
from safemesa.learners.config import RiskConfig
from safemesa.learners.meta.settings import MAMLSettings, MetaSettings
from safemesa.learners.optimiser import Adam
from safemesa.learners.risk import RiskTerm, no_risk_term, risk_loss, risk_target, soft_update
from safemesa.learners.targets import AbstractTarget, Sampled
from safemesa.networks.critics import RiskCritic


class BatchPlan(NamedTuple):
    """Which rows one outer step needs: `[tasks, steps, rows]` support and `[tasks, rows]` query."""

    tasks: int
    distinct_tasks: bool
    support_steps: int
    support_rows: int
    query_rows: int


class MetaState(eqx.Module):
    """The prior while it is being learned. `log_step_sizes` has one scalar per tensor.

    `target_critic` is the critic that bootstraps, where that is another one (`meta.target_rate`).
    """

    critic: RiskCritic
    log_step_sizes: PyTree
    critic_optimiser: PyTree
    step_size_optimiser: PyTree
    target_critic: RiskCritic | None = None


@dataclass(frozen=True, kw_only=True)
class AbstractMetaLearner(abc.ABC):
    """A way to learn a safety critic from several tasks and to specialise it to one of them.

    Subclasses are frozen dataclasses with the fields below; `update` is pure. What a subclass does
    not override is MAML's.
    """

    settings: Any = field(default_factory=MAMLSettings)
    """What flags `--meta.*` say: MAML's, of which a subclass may have a default of another type
    (`learners/meta/settings.py`)."""
    risk: RiskConfig
    target: AbstractTarget = field(default_factory=Sampled)
    """Whose risk is learned."""
    uses_training_logs: ClassVar[bool] = True
    """False for learners that start Phase 2 from fresh networks."""

    @property
    def inner_steps(self) -> int:
        """Inner gradient steps that this learner takes first in Phase 2: as many as in Phase 1."""
        return self.settings.inner_steps

    @property
    def inner_rate(self) -> float:
        """Where the rates of the inner steps start."""
        return self.settings.inner_rate

    def plan(self, tasks: int) -> BatchPlan:
        """The rows of an outer step: of K distinct tasks, support and query from disjoint rows."""
        settings = self.settings
        return BatchPlan(
            min(settings.tasks, tasks),
            True,
            settings.inner_steps,
            settings.support_batch,
            settings.query_batch,
        )

    def init(self, critic: RiskCritic) -> MetaState:
        """State before the first outer step: Adam moments at zero, inner rates at their start."""
        rates = constant_step_sizes(critic, self.inner_rate)
        follower = None if self.settings.target_rate == 1.0 else jax.tree.map(jnp.copy, critic)
        return MetaState(critic, rates, outer_optimiser(self.settings).init(critic), None, follower)

    def follow(self, state: MetaState, critic: RiskCritic) -> RiskCritic | None:
        """The critic that bootstraps after an outer step; None where that is the critic itself."""
        if state.target_critic is None:
            return None
        return soft_update(state.target_critic, critic, self.settings.target_rate)

    @abc.abstractmethod
    def update(
        self,
        state: MetaState,
        support: RiskBatch,
        query: RiskBatch,
        risk_term: RiskTerm = no_risk_term,
    ) -> tuple[MetaState, Metrics]:
        """One outer step.

        Leaves of `support` are `[tasks, steps, rows, ...]`, of `query` `[tasks, rows, ...]`.
        """


SAMPLED = Sampled()


def critic_gradient(
    critic: RiskCritic,
    batch: RiskBatch,
    risk: RiskConfig,
    risk_term: RiskTerm = no_risk_term,
    target: AbstractTarget = SAMPLED,
    bootstrap: RiskCritic | None = None,
) -> tuple[Float[Array, ""], RiskCritic]:
    """Safety loss and its gradient.

    Bootstraps from `bootstrap` or, without one, from the critic itself; never with a gradient.
    """
    label = risk_target(bootstrap or critic, batch, risk.gamma_risk, target)

    def loss_of(candidate: RiskCritic) -> Float[Array, ""]:
        return risk_loss(candidate, batch, label, risk.loss, risk_term)

    return jax.value_and_grad(loss_of)(critic)


def inner_loop(
    critic: RiskCritic,
    log_step_sizes: PyTree,
    support: RiskBatch,
    risk: RiskConfig,
    *,
    first_order: bool = False,
    risk_term: RiskTerm = no_risk_term,
    target: AbstractTarget = SAMPLED,
    bootstrap: RiskCritic | None = None,
) -> RiskCritic:
    """Gradient steps `psi - alpha_1 grad L_risk(psi)`, one per leading entry of `support`.

    MESA Algorithm 1, lines 4 and 10. Differentiable to second order unless `first_order`.
    """

    def inner_step(current: RiskCritic, batch: RiskBatch) -> tuple[RiskCritic, None]:
        _, grads = critic_gradient(current, batch, risk, risk_term, target, bootstrap)
        if first_order:
            grads = jax.lax.stop_gradient(grads)
        stepped = jax.tree.map(
            lambda weight, log_rate, grad: weight - jnp.exp(log_rate) * grad,
            current,
            log_step_sizes,
            grads,
        )
        return stepped, None

    if support.cost.shape[0] == 1:
        return inner_step(critic, jax.tree.map(lambda leaf: leaf[0], support))[0]
    return jax.lax.scan(inner_step, critic, support)[0]


def constant_step_sizes(critic: RiskCritic, rate: float) -> PyTree:
    """The logarithm of one rate for every tensor of the critic."""
    return jax.tree.map(lambda _: jnp.log(jnp.asarray(rate, jnp.float32)), critic)


def adapted_loss(
    critic: RiskCritic,
    log_step_sizes: PyTree,
    support: RiskBatch,
    query: RiskBatch,
    *,
    settings: MAMLSettings,
    risk: RiskConfig,
    risk_term: RiskTerm,
    target: AbstractTarget = SAMPLED,
    bootstrap: RiskCritic | None = None,
) -> Float[Array, ""]:
    """Outer loss of one task: the query loss of the adapted critic (MESA eq. 2).

    Bootstraps from `bootstrap` or, without one, from the adapted critic; no gradient flows through
    the target.
    """
    adapted = inner_loop(
        critic,
        log_step_sizes,
        support,
        risk,
        first_order=settings.first_order,
        risk_term=risk_term,
        target=target,
        bootstrap=bootstrap,
    )
    label = risk_target(bootstrap or adapted, query, risk.gamma_risk, target)
    return risk_loss(adapted, query, label, risk.loss, risk_term)


def mean_over_tasks(
    task_gradient: Callable[[RiskBatch, RiskBatch], PyTree], support: RiskBatch, query: RiskBatch
) -> PyTree:
    """Mean of `task_gradient(support_j, query_j)` over the leading task axis.

    Sequential on a CPU, where batched products are no faster and memory traffic is, and
    vectorised on accelerators.
    """
    if jax.default_backend() == "cpu":
        first = jax.tree.map(lambda leaf: leaf[0], (support, query))
        shapes = jax.eval_shape(task_gradient, *first)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

        def add(total: PyTree, task: tuple[RiskBatch, RiskBatch]) -> tuple[PyTree, None]:
            return jax.tree.map(jnp.add, total, task_gradient(*task)), None

        total = jax.lax.scan(add, zeros, (support, query))[0]
    else:
        per_task = jax.vmap(task_gradient)(support, query)
        total = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), per_task)
    count = query.cost.shape[0]
    return jax.tree.map(lambda leaf: leaf / count, total)


def outer_optimiser(settings: MetaSettings) -> Adam:
    """Adam behind a clip of the global norm."""
    return Adam(learning_rate=settings.outer_rate, gradient_clip=settings.gradient_clip)
