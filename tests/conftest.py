"""What holds in every test: strict arrays, checked shapes, no network, no state of the machine."""

import atexit
import contextlib
import gc
import ipaddress
import os
import shutil
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from compiler_flags import QUICK_TO_COMPILE

# Read when JAX and matplotlib are imported, here and in the processes that tests start.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("XLA_FLAGS", QUICK_TO_COMPILE)
# Compiled functions are shared by all tests of this session, by pytest's own processes and by those
# that tests start; the user's cache is left alone.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="safemesa-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import hypothesis
import jax
import jax.monitoring
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

if "safemesa" in sys.modules:
    raise pytest.UsageError("safemesa was imported before its shapes could be checked")
install_import_hook("safemesa", "beartype.beartype")

# The first example of a property compiles, so no single example can have a deadline.
hypothesis.settings.register_profile("safemesa", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("safemesa")


@pytest.fixture(autouse=True, scope="module")
def _compiled_functions_end_with_their_file() -> Iterator[None]:
    # Each maps memory of its own: those of a session took 5 GB and 55 000 maps. Linux allows a
    # process 65 530, beyond which the compiler crashes.
    yield
    jax.clear_caches()
    gc.collect()


BACKEND_COMPILE = "/jax/core/compile/backend_compile_duration"
_running_counts: list[Counter[str]] = []


def _record_compilation(event: str, duration: float, **metadata: str | int) -> None:
    del duration
    if event == BACKEND_COMPILE:
        name = str(metadata["fun_name"]).removeprefix("jit(").removesuffix(")")
        for counts in _running_counts:
            counts[name] += 1


# Registered once: the oldest JAX that is supported has no public way to unregister.
jax.monitoring.register_event_duration_secs_listener(_record_compilation)


@contextlib.contextmanager
def _count_compilations() -> Iterator[Counter[str]]:
    _running_counts.append(Counter())
    try:
        yield _running_counts[-1]
    finally:
        _running_counts.pop()


@pytest.fixture
def compile_counter() -> Callable[[], AbstractContextManager[Counter[str]]]:
    """Counts XLA compilations by the name of the jitted function.

    `with compile_counter() as counts: ...` and then `assert counts["update"] == 1`. Operations
    outside any `jit` count under the name of their primitive.
    """
    return _count_compilations


def _is_local(host: str | bytes | None) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Iterator[None]:
    def guard(function: Callable, host_of: Callable) -> Callable:
        def guarded(*arguments, **keywords):
            host = host_of(*arguments)
            if not _is_local(host):
                raise RuntimeError(f"a test tried to reach {host!r}: tests stay on this machine")
            return function(*arguments, **keywords)

        return guarded

    def host_of_connection(self: socket.socket, address: tuple) -> str | None:
        return address[0] if self.family in (socket.AF_INET, socket.AF_INET6) else None

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            guarded = guard(getattr(socket.socket, name), host_of_connection)
            patch.setattr(socket.socket, name, guarded)
        patch.setattr(socket, "getaddrinfo", guard(socket.getaddrinfo, lambda host, *_: host))
        yield
