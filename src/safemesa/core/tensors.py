"""Named NumPy arrays in safetensors files: atomic writing, checked reading, memory mapping.

Imports no JAX.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from safemesa.core.errors import CheckpointError, SafemesaError
from safemesa.core.files import atomic_path

_DTYPES: dict[str, np.dtype] = {
    "BOOL": np.dtype(np.bool_),
    "I8": np.dtype("<i1"),
    "I16": np.dtype("<i2"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "U8": np.dtype("<u1"),
    "U16": np.dtype("<u2"),
    "U32": np.dtype("<u4"),
    "U64": np.dtype("<u8"),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_ALIGNMENT = 8
"""Bytes to which the header is padded."""


def save_tensors(path: str | Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes named arrays of any shape (also 0-d), atomically.

    Equal input gives equal bytes, so that checksums can be compared. Memory-mapped input is
    streamed and never held in memory as a whole.

    Raises:
        CheckpointError: an array has a dtype other than bool, integers or float16/32/64, or the
            reserved name `__metadata__`.
        OutputFolderError: the file cannot be written.
    """
    header: dict[str, Any] = {}
    # Large items first, so that every array is aligned to its item size.
    ordered = sorted(tensors.items(), key=lambda item: -np.asarray(item[1]).dtype.itemsize)
    arrays: list[np.ndarray] = []
    offset = 0
    for name, value in ordered:
        # `ascontiguousarray` would turn 0-d arrays into 1-d ones.
        array = np.asarray(value, order="C")
        code = _CODES.get(array.dtype.newbyteorder("<"))
        if code is None or name == "__metadata__":
            raise CheckpointError(
                f"cannot write {path}: {name!r} has dtype {array.dtype}, expected bool, an "
                "integer or float16/32/64 under another name than '__metadata__'. Convert it."
            )
        end = offset + array.nbytes
        header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": [offset, end]}
        offset = end
        arrays.append(array.astype(array.dtype.newbyteorder("<"), copy=False))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays:
            file.write(array.reshape(-1).view(np.uint8).data)


def load_tensors(
    path: str | Path, *, error: type[SafemesaError] = CheckpointError
) -> dict[str, np.ndarray]:
    """Reads all arrays into memory; they are writable copies.

    Raises:
        error: the file is missing, truncated or damaged.
    """
    return {name: np.array(array) for name, array in map_tensors(path, error=error).items()}


def map_tensors(
    path: str | Path, *, error: type[SafemesaError] = CheckpointError
) -> dict[str, np.ndarray]:
    """Maps all arrays read-only (`np.memmap`): pages are read from disk when they are used.

    Raises:
        error: the file is missing, truncated or damaged.
    """
    path = Path(path)
    data_start, entries = _read_header(path, error)
    content = np.memmap(path, dtype=np.uint8, mode="r")
    columns: dict[str, np.ndarray] = {}
    for name, entry in entries.items():
        dtype = _DTYPES.get(entry["dtype"])
        if dtype is None:
            raise error(
                f"{path}: {name!r} has dtype {entry['dtype']}, expected one of "
                f"{', '.join(_DTYPES)}. Convert it first."
            )
        begin, end = (data_start + offset for offset in entry["data_offsets"])
        shape = tuple(entry["shape"])
        if end > content.size or end - begin != math.prod(shape) * dtype.itemsize:
            raise error(_damaged(path, f"the extent of {name!r} does not fit its shape {shape}"))
        columns[name] = content[begin:end].view(dtype).reshape(shape)
    return columns


def _read_header(path: Path, error: type[SafemesaError]) -> tuple[int, dict[str, dict[str, Any]]]:
    """Byte at which data start, and per array its `dtype`, `shape` and `data_offsets`.

    `safe_open` checks the header against the file's size, overlaps and holes; the offsets that it
    does not tell are then read from the header that it found sound.
    """
    _check_is_file(path, error)
    try:
        with safe_open(path, framework="numpy") as file:
            names = set(file.keys())
        with open(path, "rb") as raw:
            length = int.from_bytes(raw.read(8), "little")
            entries = json.loads(raw.read(length))
    except (SafetensorError, OSError, ValueError, RecursionError) as cause:
        raise error(_damaged(path, str(cause))) from cause
    entries.pop("__metadata__", None)
    if set(entries) != names:
        raise error(_damaged(path, "its header names an array twice"))
    return 8 + length, entries


def _check_is_file(path: Path, error: type[SafemesaError]) -> None:
    if not path.is_file():
        raise error(f"{path} does not exist or is no file. Check the path.")


def _damaged(path: Path, reason: str) -> str:
    return (
        f"{path} is not a sound safetensors file ({reason}): it is truncated or damaged. Restore "
        "it from a copy, or make it again."
    )
