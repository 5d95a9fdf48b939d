"""Tensor files: bit-exact, readable by the library, and safe against damaged input."""

import contextlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file

from safemesa.core import tensors
from safemesa.core.errors import CheckpointError, DatasetError

DTYPES = [np.bool_, np.int8, np.int32, np.int64, np.uint8, np.uint32, np.float16, np.float32]
DTYPES += [np.float64, np.dtype(">f4"), np.dtype(">i8")]
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0))
)
NAMES = st.text(max_size=8).filter(lambda name: name != "__metadata__")


def same_bits(first: np.ndarray, second: np.ndarray) -> bool:
    little = first.astype(first.dtype.newbyteorder("<"))
    return (
        little.shape == second.shape
        and little.dtype == second.dtype
        and little.tobytes() == second.tobytes()
    )


@settings(max_examples=40)
@given(st.dictionaries(NAMES, ARRAYS, max_size=5))
def test_round_trip_is_bit_exact(
    tmp_path_factory: pytest.TempPathFactory,
    arrays: dict[str, np.ndarray],
) -> None:
    path = tmp_path_factory.mktemp("round") / "a.safetensors"
    tensors.save_tensors(path, arrays)
    loaded, mapped = tensors.load_tensors(path), tensors.map_tensors(path)
    library = load_file(path)
    assert set(loaded) == set(mapped) == set(library) == set(arrays)
    for name, array in arrays.items():
        assert same_bits(array, loaded[name])
        assert same_bits(array, mapped[name])
        assert same_bits(array, library[name])
        assert loaded[name].flags.writeable
        assert not mapped[name].flags.writeable
        assert mapped[name].flags.aligned


def test_bytes_depend_on_content_only(tmp_path: Path) -> None:
    values = {"a": np.arange(3, dtype=np.float32), "b": np.array(True)}
    tensors.save_tensors(tmp_path / "1", values)
    tensors.save_tensors(tmp_path / "2", values)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_strided_input_is_written_in_row_order(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    tensors.save_tensors(tmp_path / "a", {"t": array.T, "s": array[::2, ::-1]})
    loaded = tensors.load_tensors(tmp_path / "a")
    np.testing.assert_array_equal(loaded["t"], array.T)
    np.testing.assert_array_equal(loaded["s"], array[::2, ::-1])


@pytest.mark.parametrize("array", [np.array([1j]), np.array(["a"]), np.array([None], object)])
def test_other_dtypes_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(CheckpointError, match="'x' has dtype"):
        tensors.save_tensors(tmp_path / "a", {"x": array})
    assert list(tmp_path.iterdir()) == []


def write_raw(path: Path, header: object, data: bytes) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"[]",
        b"\xff" * 8,
        {"x": entry("F32", [2], 0, 4)},
        {"x": entry("F32", [2], 0, 16)},
        {"x": entry("F32", [2], 4, 12)},
        {"x": entry("F32", [-2], 0, 8)},
        {"x": entry("F32", [2**62, 4], 0, 8)},
        {"x": entry("F32", [2**40], 0, 2**42)},
        {"x": entry("F32", [0, 2**63], 0, 0), "y": entry("F32", [2], 8, 0)},
        {"x": entry("Z9", [2], 0, 8)},
        {"x": entry("C64", [1], 0, 8)},
        {"x": {"dtype": "F32"}},
        {"x": entry("F32", [1], 0, 4), "y": entry("F32", [2], 0, 8)},
        b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"__metadata__":[1]}',
        b'{"x":' * 50_000,
    ],
)
def test_wrong_headers_are_typed_errors(tmp_path: Path, header: object) -> None:
    path = write_raw(tmp_path / "a", header, b"\0" * 8)
    for read in (tensors.load_tensors, tensors.map_tensors):
        with pytest.raises(DatasetError, match="a"):
            read(path, error=DatasetError)


def test_a_name_given_twice_never_mixes_arrays(tmp_path: Path) -> None:
    one = '"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    two = '"x":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}'
    path = write_raw(tmp_path / "a", f"{{{one},{two}}}".encode(), b"\0" * 8)
    with pytest.raises(CheckpointError):
        tensors.map_tensors(path)


def test_a_missing_file_is_a_typed_error(tmp_path: Path) -> None:
    for read in (tensors.load_tensors, tensors.map_tensors):
        with pytest.raises(CheckpointError, match="does not exist"):
            read(tmp_path / "no")
        with pytest.raises(CheckpointError, match="is no file"):
            read(tmp_path)


def test_every_truncation_is_a_typed_error(tmp_path: Path) -> None:
    path = tmp_path / "a"
    tensors.save_tensors(path, {"x": np.arange(9, dtype=np.float32), "y": np.array(False)})
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="truncated or damaged"):
            tensors.map_tensors(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(CheckpointError):
        tensors.map_tensors(path)


@settings(max_examples=80)
@given(st.data())
def test_flipped_bytes_give_arrays_or_a_typed_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("flip") / "a"
    tensors.save_tensors(path, {"x": np.arange(4, dtype=np.float32), "yy": np.array(True)})
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    # A flip of data or of a name's letter cannot be seen without a checksum.
    with contextlib.suppress(CheckpointError):
        for array in tensors.load_tensors(path).values():
            assert array.nbytes <= len(content)
