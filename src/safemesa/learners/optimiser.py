"""Adam for pytrees, with the types of what it optimises."""

from dataclasses import dataclass
from typing import Any, TypeVar, cast

import jax
import optax

from safemesa.core.types import PyTree

Tree = TypeVar("Tree")


@dataclass(frozen=True, kw_only=True, slots=True)
class Adam:
    """Kingma and Ba 2015, optionally behind a clip of the gradient's global norm."""

    learning_rate: float
    gradient_clip: float | None = None

    @property
    def _transform(self) -> optax.GradientTransformation:
        adam = optax.adam(self.learning_rate)
        if self.gradient_clip is None:
            return adam
        return optax.chain(optax.clip_by_global_norm(self.gradient_clip), adam)

    def init(self, tree: Any) -> PyTree:
        """Moments at zero."""
        return self._transform.init(tree)

    def step(self, tree: Tree, gradient: Tree, state: PyTree) -> tuple[Tree, PyTree]:
        """One step down the gradient: the new tree and the new moments."""
        # Optax raises a float to an int32 count, which callers with strict promotion would refuse.
        with jax.numpy_dtype_promotion("standard"):
            updates, state = self._transform.update(cast(Any, gradient), state)
        return cast(Tree, optax.apply_updates(cast(Any, tree), updates)), state
