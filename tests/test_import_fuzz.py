"""Mutated logs and maps of every format: each ends in an error of ours or in a sound dataset.

Slow. A seed gives the same mutations everywhere; FUZZ_SEED and FUZZ_COUNT try others.
"""

import json
import os
import random
import shutil
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safemesa.core.errors import SafemesaError
from safemesa.datasets.doctor.examine import examine
from safemesa.datasets.importers.import_map import ImportMap, read_map
from safemesa.datasets.importers.write import import_logs
from safemesa.datasets.offline_tasks import OfflineTasks

SEED = int(os.environ.get("FUZZ_SEED", "0"))
COUNT = int(os.environ.get("FUZZ_COUNT", "240"))
"""Mutations of each of the ten kinds."""
EPISODES, STEPS = 3, 12
ROWS = EPISODES * STEPS
MAP = """
domain = "fuzz"
rows = "steps"
dt = 0.1
horizon = 50
gaps = "split"
missing = "hold"
missing_values = ["--"]
obs = [{name = "x", column = "x", next_column = "nx", scale = 1.0}]
columns = {time = "t", episode = "e"}

[[action]]
name = "u"
column = "u"
low = -1.0
high = 1.0

[[signal]]
name = "c"

[cost]
limit = "abs(x) / (1 - c) > 0.9 or c > 0.5"

[tasks.parameters.a]
mass = 1.5
"""
TOKENS = [
    b"nan", b"inf", b"-1", b"1e999", b"", b",", b"\n", b'"', b'"\n', b"\0", b"\0" * 300, b"\r",
    b";",
    b"1_0", b"\xff", b"\xef\xbb\xbf", b"0x1", b"True", b"2020-01-01T00:00:00", b"12:00:00",
    b"99999-01-01T00:00:00", b"1e-400", b"9" * 5000, b" ", b"\t", "\uff11".encode(), b"-0",
    b"[" * 400,
    b"{", b"'", b"#", b"=", b"x", b"u", b"t", b"--", b"1,5", "é".encode(), "\u2028".encode(),
]  # fmt: skip


def columns(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "t": np.tile(np.arange(STEPS) * 0.1, EPISODES).round(3),
        "e": np.repeat(np.arange(EPISODES), STEPS),
        "x": rng.uniform(-0.8, 0.8, ROWS).round(4),
        "nx": rng.uniform(-0.8, 0.8, ROWS).round(4),
        "u": rng.uniform(-1, 1, ROWS).round(4),
        "c": (np.arange(ROWS) % STEPS == STEPS - 1).astype(int),
        "note": np.zeros(ROWS),
    }


def as_csv(path: Path, table: dict[str, np.ndarray]) -> None:
    lines = [
        ",".join(table),
        *(",".join(map(str, row)) for row in zip(*table.values(), strict=True)),
    ]
    path.write_text("\n".join(lines) + "\n")


def as_npz(path: Path, table: dict[str, Any], save: Callable[..., None] = np.savez) -> None:
    save(path, **table)


def as_hdf5(path: Path, table: dict[str, np.ndarray]) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        for name, values in table.items():
            file.create_dataset(name, data=values, compression="gzip" if name in "xu" else None)


def as_episode_groups(path: Path, table: dict[str, np.ndarray]) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        for episode in range(EPISODES):
            rows = slice(episode * STEPS, (episode + 1) * STEPS)
            for name, values in table.items():
                if name != "e":
                    file[f"data/demo_{episode}/{name}"] = values[rows]


def as_parquet(path: Path, table: dict[str, np.ndarray]) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(table), path)


def as_minari(path: Path, table: dict[str, np.ndarray]) -> None:
    import h5py

    (path / "data").mkdir(parents=True)
    space = json.dumps({"type": "Box", "low": [-1.0], "high": [1.0]})
    metadata = {"action_space": space, "total_episodes": EPISODES, "dataset_id": "x/y-v0"}
    (path / "data" / "metadata.json").write_text(json.dumps(metadata))
    with h5py.File(path / "data" / "main_data.hdf5", "w") as file:
        for episode in range(EPISODES):
            rows = slice(episode * STEPS, (episode + 1) * STEPS)
            group = file.create_group(f"episode_{episode}")
            group["observations"] = np.zeros((STEPS + 1, 2), np.float32)
            group["actions"] = table["u"][rows, None].astype(np.float32)
            group["rewards"] = np.zeros(STEPS)
            group["terminations"] = np.zeros(STEPS, np.bool_)
            group["truncations"] = np.arange(STEPS) == STEPS - 1
            group["infos/cost"] = table["c"][rows].astype(np.float32)


WRITERS: dict[str, tuple[str, Callable[[Path, dict[str, np.ndarray]], None]]] = {
    "csv": ("a.csv", as_csv),
    "npz": ("a.npz", as_npz),
    "packed npz": ("a.npz", lambda path, table: as_npz(path, table, np.savez_compressed)),
    "hdf5": ("a.hdf5", as_hdf5),
    "episode groups": ("a.hdf5", as_episode_groups),
    "parquet": ("a.parquet", as_parquet),
    "minari": ("set", as_minari),
}
KINDS = (*WRITERS, "text map", "json map", "native")


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One to sixteen bits, bytes, cuts, copies, tokens or extreme integers."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4, 16])):
        if not changed:
            break
        place, kind = rng.randrange(len(changed)), rng.randrange(7)
        if kind == 0:
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[place] = rng.randrange(256)
        elif kind == 2:
            del changed[place : place + rng.choice([1, 2, 10, 200])]
        elif kind == 3:
            changed[place:place] = rng.choice(TOKENS)
        elif kind == 4:
            other = rng.randrange(len(changed))
            changed[place:place] = changed[other : other + rng.choice([1, 5, 50, 500])]
        elif kind == 5:
            changed[place : place + rng.choice([1, 3, 6])] = rng.choice(TOKENS)
        else:
            extreme = rng.choice([b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\xff" * 4, b"\0\0\0\x80"])
            changed[place : place + 4] = extreme
    return bytes(changed)


class Trial:
    """A sound log of one kind, and a place to spoil it."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self.work = folder / "work"
        table = columns(1)
        self.name, write = WRITERS.get(kind, WRITERS["csv"])
        self.source = folder / "sound" / self.name
        self.source.parent.mkdir(parents=True)
        write(self.source, table)
        text = MAP
        if kind == "episode groups":
            text = text.replace(', episode = "e"', "")
        self.text = text.encode()
        (folder / "m.toml").write_bytes(self.text)
        self.map = ImportMap() if kind == "minari" else read_map(folder / "m.toml")
        if kind == "native":
            import_logs([self.source], self.map, folder / "sound" / "data")

    def spoil(self, rng: random.Random) -> tuple[Path, ImportMap]:
        """A mutated file and its map; a mutated map may be refused here already."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        path, mapping = self.work / self.name, self.map
        if self.kind == "minari":
            shutil.copytree(self.source, path)
            file = path / "data" / rng.choice(["metadata.json", "main_data.hdf5", "main_data.hdf5"])
            file.write_bytes(mutate(file.read_bytes(), rng))
        elif self.kind == "native":
            path = self.work / "data"
            shutil.copytree(self.folder / "sound" / "data", path)
            file = path / rng.choice(["manifest.json", "train-0000.safetensors"])
            file.write_bytes(mutate(file.read_bytes(), rng))
        elif self.kind.endswith("map"):
            shutil.copy(self.source, path)
            text = self.text
            if self.kind == "json map":
                text = json.dumps(tomllib.loads(text.decode()), indent=1).encode()
            file = self.work / ("m.json" if self.kind == "json map" else "m.toml")
            file.write_bytes(mutate(text, rng))
            mapping = read_map(file)
        else:
            path.write_bytes(mutate(self.source.read_bytes(), rng))
        return path, mapping

    def run(self, rng: random.Random) -> str:
        """What became of one mutation; anything but these words is a fault of ours."""
        out = self.work / "out"
        try:
            path, mapping = self.spoil(rng)
            if self.kind == "native":
                examine([path])
                OfflineTasks.load(path)
                return "accepted"
            try:
                examine([path], mapping)
            finally:
                result = import_logs([path], mapping, out)
        except SafemesaError as error:
            # A mistake of ours must not pass for a damaged file.
            cause = error.__cause__
            if isinstance(cause, AttributeError | NameError | AssertionError) or (
                type(cause).__name__ == "TypeCheckError"
            ):
                return f"{cause!r}"
            return "refused" if len(str(error)) > 20 and not out.exists() else f"{error!r}"
        data = OfflineTasks.load(out)
        assert sum(log.transitions for log in data.logs) == result.transitions
        return "accepted"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_mutation_ends_in_our_error_or_a_sound_dataset(tmp_path, kind):
    pytest.importorskip("h5py")
    pytest.importorskip("pyarrow")
    trial = Trial(kind, tmp_path)
    assert len(KINDS) * COUNT >= 2_000 or "FUZZ_COUNT" in os.environ
    ended: Counter[str] = Counter()
    for number in range(COUNT):
        try:
            ended[trial.run(random.Random(f"{SEED} {kind} {number}"))] += 1
        except BaseException as error:
            error.add_note(f"seed {SEED}, kind {kind}, number {number}: see {trial.work}")
            raise
    assert set(ended) <= {"refused", "accepted"}, ended
    assert ended["refused"] > 0
    assert kind == "packed npz" or ended["accepted"] > 0
