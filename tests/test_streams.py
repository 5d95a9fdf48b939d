"""Randomness has named purposes, and no two of them ever draw from the same key."""

import ast
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import FrameType
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_config

import safemesa
from safemesa.core import streams
from safemesa.core.streams import Stream, generator, root_key, simulator_seed, substream
from safemesa.phases.collection import compiled
from safemesa.phases.config import fitted
from safemesa.phases.run import RunOptions, run

SOURCES = Path(safemesa.__file__).parent
STREAMS = SOURCES / "core" / "streams.py"
DRAWS = ("bernoulli", "bits", "categorical", "choice", "gumbel", "normal", "permutation", "randint")
DRAWS += ("split", "truncated_normal", "uniform")


def test_no_number_of_a_purpose_can_be_a_count() -> None:
    numbers = [int(stream) for stream in Stream]
    assert len(set(numbers)) == len(Stream)
    assert all(2**31 <= number < 2**32 for number in numbers)


def test_keys_of_purposes_steps_and_parts_all_differ() -> None:
    key = jax.random.key(0)
    keys = [substream(key, stream) for stream in Stream]
    keys += [jax.random.fold_in(key, step) for step in range(100)]
    keys += [jax.random.fold_in(root_key(0, Stream.ACT), step) for step in range(100)]
    keys += list(jax.random.split(root_key(0, Stream.LEARN), 5))
    assert len({jax.random.key_data(each).tobytes() for each in keys}) == len(keys)
    assert (jax.random.split(key, 3)[2] == jax.random.fold_in(key, 2)).all()  # why this matters


def test_generators_differ_by_purpose_count_and_seed() -> None:
    counts = [(), (0,), (0, 0), (1,), (4,), (0, 4)]
    drawn = {
        (seed, stream, *count): generator(seed, stream, *count).integers(2**63)
        for seed, stream, count in product((0, 1, 4), Stream, counts)
    }
    assert len(set(drawn.values())) == len(drawn)
    tasks = {streams.task_generator(seed, kind).integers(2**63) for seed in (0, 1) for kind in
             ("train", "test")}  # fmt: skip
    assert len(tasks) == 4
    assert not tasks & set(drawn.values())
    seeds = {simulator_seed(seed, stream, episode) for seed, stream, episode in
             product((0, 1), (Stream.SIMULATOR, Stream.TEST_LOG), range(50))}  # fmt: skip
    assert len(seeds) == 200


def test_a_seed_is_the_robot_that_it_was_in_every_version() -> None:
    assert streams.task_generator(3, "test").integers(1000) == 978
    assert streams.task_generator(3, "train").integers(1000) == 811


def _called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def _breaches(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = _called(node)
        if name.endswith(("random.key", "random.PRNGKey")) and node.args != []:
            literal = isinstance(node.args[0], ast.Constant)
            if not literal:
                yield node.lineno, "a key of a seed without a purpose: take streams.root_key"
        elif name.endswith("default_rng") and node.args:
            if not isinstance(node.args[0], ast.Constant):
                yield node.lineno, "a generator without a purpose: take streams.generator"
        elif name.endswith("SeedSequence"):
            yield node.lineno, "seeds without a purpose: take streams.simulator_seed"
        elif name.endswith("fold_in") and isinstance(node.args[1], ast.Constant):
            yield node.lineno, "a part of a key without a name: take streams.substream"


@pytest.mark.parametrize(
    "source",
    [
        "jax.random.key(seed)",
        "np.random.default_rng([seed, 4])",
        "np.random.default_rng(seed)",
        "np.random.SeedSequence([seed])",
        "jax.random.fold_in(key, 1)",
    ],
)
def test_what_breaks_the_rule_is_seen(source: str) -> None:
    assert len(list(_breaches(ast.parse(source)))) == 1


def test_nobody_else_makes_keys_of_seeds() -> None:
    # The runtime runs without this package; its generator makes an example's actions. Statistics
    # over finished runs draw nothing of a run.
    # The demo's cart is a simulator with seeds of its own.
    others = {STREAMS, *((SOURCES / "shield") / name for name in ("runtime.py", "demo/cart.py"))}
    others |= set((SOURCES / "experiments" / "statistics").glob("*.py"))
    files = set(SOURCES.rglob("*.py")) - others
    found = [
        f"{file.relative_to(SOURCES)}:{line}: {what}"
        for file in sorted(files)
        for line, what in _breaches(ast.parse(file.read_text()))
    ]
    assert not found, "\n".join(found)


def _report(note: Callable[[np.ndarray], None], data: jax.Array) -> None:
    """Calls `note` when a compiled function runs: once for a whole `vmap`, not per element."""

    @jax.custom_batching.custom_vmap
    def emit(values: jax.Array) -> jax.Array:
        jax.debug.callback(note, values)
        return jnp.zeros(())

    @emit.def_vmap
    def _(size: int, batched: list[bool], values: jax.Array) -> tuple[jax.Array, bool]:
        del size, batched
        return emit(values), False

    emit(data)


class Uses:
    """Where in the sources every key was drawn from, and where it came from."""

    def __init__(self) -> None:
        self.draws: dict[bytes, set[str]] = defaultdict(set)
        self.origins: dict[bytes, set[str]] = defaultdict(set)

    def note(self, kind: str, place: str, data: np.ndarray) -> None:
        table = self.draws if kind == "draw" else self.origins
        for key in np.asarray(data).reshape(-1, data.shape[-1]):
            table[key.tobytes()].add(place)

    def record(self, kind: str, place: str, keys: jax.Array) -> None:
        data = jax.random.key_data(keys)
        if isinstance(data, jax.core.Tracer):
            _report(lambda values: self.note(kind, place, values), data)
        else:
            self.note(kind, place, np.asarray(data))


def _place() -> str:
    """File and line of the caller in the package, and the purpose that it named."""
    frame = cast(FrameType, sys._getframe(2))
    purpose = ""
    while frame.f_code.co_filename == str(STREAMS):
        purpose = str(frame.f_locals.get("stream", purpose))
        frame = cast(FrameType, frame.f_back)
    return purpose or f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def _watched(monkeypatch: pytest.MonkeyPatch) -> Uses:
    uses = Uses()

    def watch(name: str) -> None:
        plain: Callable = getattr(jax.random, name)

        def watching(key: jax.Array, *arguments: object, **keywords: object) -> jax.Array:
            place = _place()
            if name != "fold_in":
                uses.record("draw", f"{name} at {place}", key)
            result = plain(key, *arguments, **keywords)
            if name in ("fold_in", "split"):
                uses.record("origin", place, result)
            return result

        monkeypatch.setattr(jax.random, name, watching)

    for name in (*DRAWS, "fold_in"):
        watch(name)
    return uses


def _conflicts(table: dict[bytes, set[str]]) -> set[tuple[str, ...]]:
    return {tuple(sorted(places)) for places in table.values() if len(places) > 1}


def test_the_watch_sees_a_key_that_is_used_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    uses = _watched(monkeypatch)

    @jax.jit
    def twice(key: jax.Array) -> jax.Array:
        first, second = jax.random.split(key)
        again = jax.random.fold_in(key, 1)
        return (
            jax.random.normal(first) + jax.random.normal(second)
            + jax.random.uniform(again)
        )  # fmt: skip

    twice(jax.random.key(0)).block_until_ready()
    jax.effects_barrier()
    assert len(_conflicts(uses.draws)) == 1  # `second` and `again` are the same key
    assert len(_conflicts(uses.origins)) == 1


@pytest.mark.filterwarnings("ignore::safemesa.phases.collection.logs.FewViolationsWarning")
@pytest.mark.parametrize(
    ("arm", "domain"),
    [
        ("safemesa", "navigation2"),
        pytest.param("mesa", "navigation1", marks=pytest.mark.slow),
        pytest.param("multitask+sqrl", "maze", marks=pytest.mark.slow),
        pytest.param("carl", "navigation2", marks=pytest.mark.slow),
        pytest.param("safemesa", "cartpole", marks=pytest.mark.slow),
    ],
)
def test_no_two_purposes_meet_in_a_run_whose_seeds_are_equal(
    arm: str, domain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(arm, domain, seed=0)
    assert config.data_seed == config.seed
    config = replace(
        config,
        data=replace(config.data, train_tasks=2, train_transitions=120, test_transitions=80),
        meta=fitted(type(config.meta), config.meta, {"iterations": 3, "tasks": 2}),
        adapt=replace(config.adapt, steps=3, scratch_steps=3),
        deploy=replace(config.deploy, episodes=1, chunk_steps=20),
        sac=replace(config.sac, warmup_steps=5),
    )
    monkeypatch.setattr(compiled, "ROLLOUTS_PER_CALL", 1)
    jax.clear_caches()  # what was compiled without the watch would not be seen
    uses = _watched(monkeypatch)
    run([config], [tmp_path / "run"], RunOptions(data_dir=tmp_path / "data"))
    jax.effects_barrier()
    jax.clear_caches()
    assert len(uses.draws) > 200
    assert not _conflicts(uses.draws)
    assert not _conflicts(uses.origins)
