"""Which files are logs, and which reader reads them."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from safemesa.core.errors import DatasetError
from safemesa.core.registry import Registry
from safemesa.datasets.importers.csv_file import CSVSource
from safemesa.datasets.importers.hdf5_file import HDF5Source
from safemesa.datasets.importers.import_map import ImportMap
from safemesa.datasets.importers.lerobot_folder import LeRobotSource, is_lerobot
from safemesa.datasets.importers.mcap_file import open_mcap
from safemesa.datasets.importers.minari_folder import MinariSource, is_minari
from safemesa.datasets.importers.npz_file import NPZSource
from safemesa.datasets.importers.parquet_file import ParquetSource
from safemesa.datasets.importers.ros2_bag import Ros2BagSource, is_bag
from safemesa.datasets.importers.source import AbstractSource, Opener, natural_order
from safemesa.datasets.importers.ulog_file import ULogSource

readers: Registry[Opener] = Registry("file format")
"""Suffix to reader. A new format is one class in one file and one line here."""

for _suffix, _reader in {
    ".csv": CSVSource,
    ".tsv": CSVSource,
    ".parquet": ParquetSource,
    ".npz": NPZSource,
    ".hdf5": HDF5Source,
    ".h5": HDF5Source,
    ".db3": Ros2BagSource,
    ".mcap": open_mcap,
    ".ulg": ULogSource,
    ".ulog": ULogSource,
}.items():
    readers.register(_suffix)(_reader)

folders: tuple[tuple[Callable[[Path], bool], Opener], ...] = (
    (is_minari, MinariSource),
    (is_bag, Ros2BagSource),
    (is_lerobot, LeRobotSource),
)
"""Folders that are one recording: what tells them, and their reader."""

PICKLES = (".pkl", ".pickle", ".npy", ".pt", ".pth")
FOREIGN = {
    ".bag": "Convert it to ROS 2 (rosbags-convert), or export its topics to CSV or Parquet",
    **dict.fromkeys((".bin", ".log", ".tlog"), "Export its messages to CSV with pymavlink"),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "Save the sheet as CSV"),
    **dict.fromkeys((".mat", ".json", ".jsonl", ".feather", ".arrow", ".txt", ".dat", ".gz"),
                    "Convert it to CSV or Parquet"),
}  # fmt: skip
"""What logs of other programs become first."""


def find_sources(paths: Sequence[Path], skipped: list[Path] | None = None) -> list[Path]:
    """Files, and folders that are one recording, below the given paths; 2 comes before 10.

    `skipped` gathers files in those folders that no reader knows.

    Raises:
        DatasetError: a path does not exist, is of an unknown kind, or holds no logs.
    """
    if not paths:
        raise DatasetError(
            f"no logs were given; expected files ending in {', '.join(readers)}, Minari and "
            "LeRobot folders, ROS 2 bags, or folders that hold some."
        )
    found: list[Path] = []
    for path in paths:
        if path.is_file() or is_recording(path):
            found.append(path)
        elif path.is_dir():
            found.extend(_below(path, [] if skipped is None else skipped))
        else:
            raise DatasetError(f"{path} does not exist. Check the path.")
    if not found:
        others = f" There are {suffixes_in_words(skipped)}." if skipped else ""
        raise DatasetError(
            f"no logs in {', '.join(map(str, paths[:20]))}; expected files ending in "
            f"{', '.join(readers)}, Minari or LeRobot folders, or ROS 2 bags.{others}"
        )
    seen: dict[Path, Path] = {}
    for path in found:
        # The same file may be given by two paths.
        if seen.setdefault(path.resolve(), path) is not path:
            raise DatasetError(f"{path} is given twice. Give every file once.")
    return found


def open_source(path: Path, mapping: ImportMap) -> AbstractSource:
    """The reader of a file, or of a folder that is one recording.

    Raises:
        DatasetError: no reader knows it, or it is damaged.
    """
    if path.is_dir():
        for tells, reader in folders:
            if tells(path):
                return reader(path, mapping)
        return MinariSource(path, mapping)
    suffix = path.suffix.lower()
    if suffix in PICKLES:
        raise DatasetError(
            f"{path}: files of this kind can run code when they are read, so they are refused. "
            "Convert it once with the program that wrote it, to NPZ (plain arrays) or CSV."
        )
    if suffix not in readers:
        advice = f" {FOREIGN[suffix]}." if suffix in FOREIGN else ""
        raise DatasetError(
            f"{path}: no reader for {suffix or 'files without suffix'}; expected one of "
            f"{', '.join(readers)}, a Minari or LeRobot folder, or a ROS 2 bag.{advice}"
        )
    return readers[suffix](path, mapping)


def suffixes_in_words(paths: Sequence[Path]) -> str:
    """`3 files ending in .bag (run_1.bag, ...), 1 in .txt (notes.txt)`."""
    kinds: dict[str, list[str]] = {}
    for path in paths:
        kinds.setdefault(path.suffix.lower() or "nothing", []).append(path.name)
    return ", ".join(
        f"{len(names)} ending in {suffix} ({names[0]}{', ...' if len(names) > 1 else ''})"
        for suffix, names in sorted(kinds.items())
    )


def is_recording(path: Path) -> bool:
    """Whether a folder is one recording, and not a place where files lie."""
    return path.is_dir() and any(tells(path) for tells, _ in folders)


def _below(folder: Path, skipped: list[Path]) -> list[Path]:
    found: list[Path] = []
    # Links to folders are not followed, so that a loop cannot trap the search.
    for place, inside, names in os.walk(folder):
        here = Path(place)
        inner = [name for name in sorted(inside) if is_recording(here / name)]
        found.extend(here / name for name in inner)
        inside[:] = sorted(name for name in inside if name not in inner and name[0] != ".")
        for name in names:
            known = Path(name).suffix.lower() in readers
            if known or name[0] != ".":
                (found if known else skipped).append(here / name)
    return sorted(found, key=natural_order)
