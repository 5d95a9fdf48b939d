"""The one place where actions are scaled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from safemesa.core.spaces import Spaces

SPACES = Spaces(
    obs_names=("x",),
    action_names=("a", "b"),
    action_low=(-0.1, 2.0),
    action_high=(0.7, 5.0),
    horizon=9,
)


def test_actions_there_and_back_are_the_same() -> None:
    physical = np.array([[-0.1, 2.0], [0.7, 5.0], [0.3, 3.5], [0.123, 4.567]], np.float32)
    unit = SPACES.to_unit(physical)
    assert unit.dtype == np.float32
    np.testing.assert_allclose(unit[:3], [[-1, -1], [1, 1], [0, 0]], atol=1e-6)
    np.testing.assert_allclose(SPACES.from_unit(unit), physical, rtol=1e-6)


@pytest.mark.parametrize("leading", [(), (5,), (2, 3)])
def test_numpy_and_compiled_code_scale_alike(leading: tuple[int, ...]) -> None:
    unit = np.random.default_rng(0).uniform(-1.0, 1.0, (*leading, 2)).astype(np.float32)
    given = SPACES.from_unit(unit)
    assert given.dtype == np.float32
    compiled = jax.jit(SPACES.from_unit)(jnp.asarray(unit))
    np.testing.assert_allclose(np.asarray(compiled), given, rtol=1e-6)


def test_what_rounding_or_a_caller_puts_beyond_a_bound_is_clipped() -> None:
    beyond = np.array([1.0 + 1e-6, -3.0], np.float32)
    for action in (beyond, jnp.asarray(beyond)):
        physical = np.asarray(SPACES.from_unit(action))
        assert physical.tolist() == [np.float32(0.7), 2.0]
