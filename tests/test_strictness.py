"""The strictness that `conftest.py` promises is really on."""

import importlib.util
import socket

import jax
import jax.numpy as jnp
import pytest


def test_rank_promotion_is_an_error():
    with pytest.raises(ValueError, match="rank"):
        jnp.ones((2, 3)) + jnp.ones(3)


def test_dtype_promotion_is_an_error():
    with pytest.raises(ValueError, match="promotion"):
        jnp.ones(3) + jnp.arange(3)


def test_shapes_of_the_package_are_checked():
    spec = importlib.util.find_spec("safemesa.core.types")
    assert spec is not None
    assert type(spec.loader).__module__.startswith("jaxtyping")


def test_compilations_are_counted_once_per_shape(compile_counter):
    @jax.jit
    def double(x):
        return 2 * x

    with compile_counter() as counts:
        double(jnp.ones(3))
        double(jnp.zeros(3))
        assert counts["double"] == 1
        double(jnp.ones(4))
    assert counts["double"] == 2
    double(jnp.ones(5))
    assert counts["double"] == 2


def test_the_network_is_out_of_reach():
    with pytest.raises(RuntimeError, match="stay on this machine"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with pytest.raises(RuntimeError, match="stay on this machine"):
        socket.getaddrinfo("example.invalid", 80)


def test_loopback_is_in_reach():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()
