"""Which files are logs, and which reader reads them."""

import os
from collections.abc import Sequence
from pathlib import Path

from safemesa.core.errors import DatasetError
from safemesa.core.registry import Registry
from safemesa.datasets.importers.csv_file import CSVSource
from safemesa.datasets.importers.hdf5_file import HDF5Source
from safemesa.datasets.importers.import_map import ImportMap
from safemesa.datasets.importers.minari_folder import MinariSource
from safemesa.datasets.importers.npz_file import NPZSource
from safemesa.datasets.importers.parquet_file import ParquetSource
from safemesa.datasets.importers.source import AbstractSource, Opener

readers: Registry[Opener] = Registry("file format")
"""Suffix to reader. A new format is one class in one file and one line here."""

for _suffix, _reader in {
    ".csv": CSVSource,
    ".tsv": CSVSource,
    ".parquet": ParquetSource,
    ".npz": NPZSource,
    ".hdf5": HDF5Source,
    ".h5": HDF5Source,
}.items():
    readers.register(_suffix)(_reader)

PICKLES = (".pkl", ".pickle", ".npy", ".pt", ".pth")


def find_sources(paths: Sequence[Path]) -> list[Path]:
    """Files, and Minari folders, below the given paths, in alphabetical order.

    Raises:
        DatasetError: a path does not exist, is of an unknown kind, or holds no logs.
    """
    if not paths:
        raise DatasetError(
            f"no logs were given; expected files ending in {', '.join(readers)}, Minari folders, "
            "or folders that hold some."
        )
    found: list[Path] = []
    for path in paths:
        if is_minari(path) or path.is_file():
            found.append(path)
        elif path.is_dir():
            found.extend(_below(path))
        else:
            raise DatasetError(f"{path} does not exist. Check the path.")
    if not found:
        raise DatasetError(
            f"no logs in {', '.join(map(str, paths))}; expected files ending in "
            f"{', '.join(readers)}, or Minari folders."
        )
    seen: dict[Path, Path] = {}
    for path in found:
        # The same file may be given by two paths.
        if seen.setdefault(path.resolve(), path) is not path:
            raise DatasetError(f"{path} is given twice. Give every file once.")
    return found


def open_source(path: Path, mapping: ImportMap) -> AbstractSource:
    """The reader of a file or Minari folder.

    Raises:
        DatasetError: no reader knows it, or it is damaged.
    """
    if path.is_dir():
        return MinariSource(path, mapping)
    suffix = path.suffix.lower()
    if suffix in PICKLES:
        raise DatasetError(
            f"{path}: files of this kind can run code when they are read, so they are refused. "
            "Convert it once with the program that wrote it, to NPZ (plain arrays) or CSV."
        )
    if suffix not in readers:
        raise DatasetError(
            f"{path}: no reader for {suffix or 'files without suffix'}; expected one of "
            f"{', '.join(readers)}, or a Minari folder."
        )
    return readers[suffix](path, mapping)


def is_minari(path: Path) -> bool:
    """Whether a folder is one Minari dataset."""
    return (path / "data" / "metadata.json").is_file()


def _below(folder: Path) -> list[Path]:
    found: list[Path] = []
    # Links to folders are not followed, so that a loop cannot trap the search.
    for place, folders, names in os.walk(folder):
        here = Path(place)
        inner = [name for name in sorted(folders) if is_minari(here / name)]
        found.extend(here / name for name in inner)
        folders[:] = sorted(name for name in folders if name not in inner and name[0] != ".")
        found.extend(here / name for name in names if Path(name).suffix.lower() in readers)
    return sorted(found)
