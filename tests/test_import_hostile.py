"""Hostile and broken files: refused at once, with an error that says why; nothing is executed."""

import io
import json
import os
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import logs
import numpy as np
import pytest

from safemesa.core.errors import SafemesaError
from safemesa.datasets.importers.import_map import ImportMap, map_from_record, read_map
from safemesa.datasets.importers.limit import parse_limit
from safemesa.datasets.importers.write import import_logs

try:
    import h5py
except ImportError:
    h5py = None

SECONDS = 2.0
FLAT = {
    "observations": np.zeros((9, 2), np.float32),
    "actions": np.zeros((9, 1), np.float32),
    "rewards": np.zeros(9, np.float32),
    "costs": np.zeros(9, np.float32),
    "terminals": np.zeros(9, np.bool_),
    "timeouts": np.arange(9) % 3 == 2,
}
BOUNDS = map_from_record({"action": [{"column": "actions", "low": -1, "high": 1}]})


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(self.path),))


def npz(path: Path, **changes: np.ndarray) -> Path:
    np.savez(path / "a.npz", **{**FLAT, **changes})
    return path / "a.npz"


def npz_with(path: Path, name: str, content: bytes) -> Path:
    """An archive with one member replaced by raw bytes."""
    with zipfile.ZipFile(path / "a.npz", "w") as archive:
        for key, values in FLAT.items():
            if f"{key}.npy" != name:
                buffer = io.BytesIO()
                np.save(buffer, values)
                archive.writestr(f"{key}.npy", buffer.getvalue())
        archive.writestr(name, content)
    return path / "a.npz"


def npy_header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    buffer = io.BytesIO()
    header = {"shape": shape, "fortran_order": False, "descr": descr}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


def hdf5(path: Path, change: Callable) -> Path:
    pytest.importorskip("h5py")
    with h5py.File(path / "a.hdf5", "w") as file:
        for key, values in FLAT.items():
            file[key] = values
        change(file)
    return path / "a.hdf5"


def replaced(name: str, make: Callable) -> Callable:
    def change(file) -> None:
        del file[name]
        make(file, name)

    return change


def npz_pickle(path: Path) -> Path:
    bombs = np.empty(9, object)
    bombs[:] = [Bomb(path / "executed")] * 9
    return npz(path, costs=bombs)


def pickle_file(path: Path) -> Path:
    import pickle

    (path / "a.pkl").write_bytes(pickle.dumps(Bomb(path / "executed")))
    return path / "a.pkl"


def virtual(file, name: str) -> None:
    layout = h5py.VirtualLayout((9,), np.float32)
    layout[:] = h5py.VirtualSource("other.hdf5", name, (9,))
    file.create_virtual_dataset(name, layout)


def external_storage(file, name: str) -> None:
    file.create_dataset(name, (9,), np.float32, external=[("/etc/hostname", 0, 36)])


def hdf5_objects(path: Path) -> Path:
    pytest.importorskip("h5py")
    kind = h5py.string_dtype()
    return hdf5(path, replaced("costs", lambda file, name: file.create_dataset(name, (9,), kind)))


def minari(path: Path, metadata: dict | str, change: Callable = lambda file: None) -> Path:
    pytest.importorskip("h5py")
    (path / "set" / "data").mkdir(parents=True)
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    (path / "set" / "data" / "metadata.json").write_text(text)
    with h5py.File(path / "set" / "data" / "main_data.hdf5", "w") as file:
        group = file.create_group("episode_0")
        group["observations"] = np.zeros((4, 2), np.float32)
        group["actions"] = np.zeros((3, 1), np.float32)
        group["rewards"] = np.zeros(3)
        group["terminations"] = group["truncations"] = np.zeros(3, np.bool_)
        group["infos/cost"] = np.zeros(3)
        change(file)
    return path / "set"


def truncated(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
    def build(path: Path) -> Path:
        file = make(path)
        data = file.read_bytes()
        file.write_bytes(data[: len(data) // 2])
        return file

    return build


def parquet(path: Path, rows: int = 9) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    parquet_module = pytest.importorskip("pyarrow.parquet")
    parquet_module.write_table(pyarrow.table({"actions": np.zeros(rows)}), path / "a.parquet")
    return path / "a.parquet"


def text(name: str, content: str | bytes) -> Callable[[Path], Path]:
    def build(path: Path) -> Path:
        data = content if isinstance(content, bytes) else content.encode()
        (path / name).write_bytes(data)
        return path / name

    return build


def npz_marked(path: Path, offset: int, value: int) -> Path:
    """An archive whose members claim something else in their headers, from `offset` on."""
    content = bytearray(npz(path).read_bytes())
    # The central directory has two bytes more before the fields that both kinds of header have.
    for sign, more in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
        place = content.find(sign)
        while place >= 0:
            content[place + offset + more] = value
            place = content.find(sign, place + 4)
    (path / "a.npz").write_bytes(bytes(content))
    return path / "a.npz"


NESTED = "[" * 100_000
CODE = b"__import__('os').mkdir('executed')"

HOSTILE: dict[str, Callable[[Path], Path]] = {
    "a pickle": pickle_file,
    "a pickle named npy": text("a.npy", b"\x80\x04."),
    "a pickle named npz": text("a.npz", b"\x80\x04\x95."),
    "a pickle named csv": text("a.csv", b"\x80\x04\x95\0\0."),
    "objects in npz": npz_pickle,
    "a structured dtype with objects": lambda p: npz_with(
        p, "costs.npy", npy_header((9,)).replace(b"'<f4'", b"'|O' ")
    ),
    "a member that leaves the archive": lambda p: npz_with(p, "../escape.npy", b""),
    "an absolute member": lambda p: npz_with(p, "/etc/escape.npy", b""),
    "an absurd shape in npz": lambda p: npz_with(p, "costs.npy", npy_header((2**60,))),
    "an overflowing shape in npz": lambda p: npz_with(p, "costs.npy", npy_header((2**40, 2**40))),
    "a negative shape in npz": lambda p: npz_with(p, "costs.npy", npy_header((-9,))),
    "code in the npy header": lambda p: npz_with(
        p, "costs.npy", b"\x93NUMPY\x01\x00\x40\x00" + CODE.ljust(64)
    ),
    "a huge npy header": lambda p: npz_with(
        p, "costs.npy", b"\x93NUMPY\x02\x00\x00\x00\x10\x00" + b"(" * 2**20
    ),
    "text where numbers belong in npz": lambda p: npz(p, costs=np.full(9, "safe")),
    "complex numbers": lambda p: npz(p, costs=np.zeros(9, np.complex64)),
    "NaN in npz": lambda p: npz(p, observations=np.full((9, 2), np.nan, np.float32)),
    "three dimensions": lambda p: npz(p, observations=np.zeros((9, 2, 2), np.float32)),
    "half an npz": truncated(npz),
    "an encrypted npz": lambda p: npz_marked(p, 6, 1),
    "an unknown compression in npz": lambda p: npz_marked(p, 8, 77),
    "an external link": lambda p: hdf5(
        p, replaced("costs", lambda f, n: f.__setitem__(n, h5py.ExternalLink("/etc/passwd", "/")))
    ),
    "a soft link": lambda p: hdf5(
        p, replaced("costs", lambda f, n: f.__setitem__(n, h5py.SoftLink("/rewards")))
    ),
    "external storage": lambda p: hdf5(p, replaced("costs", external_storage)),
    "a virtual dataset": lambda p: hdf5(p, replaced("costs", virtual)),
    "objects in hdf5": hdf5_objects,
    "an absurd shape in hdf5": lambda p: hdf5(
        p, replaced("costs", lambda f, n: f.create_dataset(n, (2**50,), "f4", chunks=(2**10,)))
    ),
    "a named type": lambda p: hdf5(
        p, replaced("costs", lambda f, n: f.__setitem__(n, np.dtype("f4")))
    ),
    "half an hdf5": truncated(lambda p: hdf5(p, lambda f: None)),
    "no hdf5 at all": text("a.hdf5", b"\x89HDF\r\n\x1a\n" + b"\0" * 100),
    "deep declaration in hdf5": lambda p: hdf5(
        p, lambda f: f.attrs.__setitem__("safemesa", "[" * 30_000)
    ),
    "deep JSON in minari": lambda p: minari(p, NESTED),
    "deep action space in minari": lambda p: minari(p, {"action_space": NESTED}),
    "a link between minari files": lambda p: minari(
        p, {}, lambda f: f.__setitem__("episode_1", h5py.ExternalLink("/etc/passwd", "/"))
    ),
    "an unknown minari storage": lambda p: minari(p, {"data_format": "../../x"}),
    "a cut minari episode": lambda p: minari(
        p,
        {},
        lambda f: replaced("infos/cost", lambda group, name: group.__setitem__(name, np.zeros(7)))(
            f["episode_0"]
        ),
    ),
    "half a parquet": truncated(parquet),
    "millions of equal rows in parquet": lambda p: parquet(p, 4_000_000),
    "no parquet at all": text("a.parquet", b"PAR1" + b"\xff" * 200 + b"PAR1"),
    "an endless line": text("a.csv", "a," * 2**22),
    "a number of ten million digits": text("a.csv", "x,u,c\n" + "1" * 10**7 + ",0,0\n"),
    "an identifier of a hundred thousand signs": lambda p: npz(
        p, **{"metadata/episode": np.full(9, "z" * 10**5)}
    ),
    "identifiers that are no text": lambda p: npz(
        p, **{"metadata/episode": np.full(9, b"\xff\xfe")}
    ),
    "binary csv": text("a.csv", b"a,b\n\xff\xfe\0\0"),
    "an empty csv": text("a.csv", ""),
}  # fmt: skip


def test_the_files_are_sound_without_the_attack(tmp_path):
    import_logs([npz(tmp_path)], BOUNDS, tmp_path / "npz")
    pytest.importorskip("h5py")
    import_logs([hdf5(tmp_path, lambda file: None)], BOUNDS, tmp_path / "hdf5")
    bounded = {"action_space": json.dumps({"low": [-1.0], "high": [1.0]})}
    import_logs([minari(tmp_path, bounded)], ImportMap(), tmp_path / "minari")


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_hostile_files_are_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = HOSTILE[name](tmp_path)
    before = sorted(tmp_path.rglob("*"))
    began = time.perf_counter()
    with pytest.raises(SafemesaError) as refusal:
        import_logs([path], BOUNDS, tmp_path / "out")
    assert time.perf_counter() - began < SECONDS
    assert len(str(refusal.value)) > 20
    # Neither a result, nor remains, nor anything that an attack would have made.
    assert sorted(tmp_path.rglob("*")) == before


HARMLESS: dict[str, Callable[[Path], Path]] = {
    "a member that is no array": lambda p: npz_with(p, "run.py", b"import os"),
    "objects": lambda p: npz(p, infos=np.asarray([{"a": 1}], object)),
    "a shape that is not held": lambda p: npz_with(p, "more.npy", npy_header((2**40, 2**40))),
    "images": lambda p: npz(p, camera=np.zeros((9, 4, 4, 3), np.uint8)),
    "a link to itself": lambda p: hdf5(p, lambda f: f.__setitem__("loop", f["/"])),
    "a soft link": lambda p: hdf5(p, lambda f: f.__setitem__("a", h5py.SoftLink("/costs"))),
    "a broken link": lambda p: hdf5(p, lambda f: f.__setitem__("a", h5py.SoftLink("/none"))),
    "an external link": lambda p: hdf5(
        p, lambda f: f.__setitem__("a", h5py.ExternalLink("/etc/passwd", "/"))
    ),
    "nothing": lambda p: hdf5(p, lambda f: f.__setitem__("a", h5py.Empty("f"))),
    "objects in hdf5": lambda p: hdf5(
        p, lambda f: f.create_dataset("a", (9,), h5py.string_dtype())
    ),
    "zeros that pack well": lambda p: hdf5(
        p,
        lambda f: f.create_dataset(
            "a", data=np.zeros(3_000_000), compression="gzip", chunks=(1_000_000,)
        ),
    ),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_the_map_does_not_use_does_no_harm(tmp_path, name):
    """It is not read, and is named as not used."""
    path = HARMLESS[name](tmp_path)
    result = import_logs([path], BOUNDS, tmp_path / "out")
    assert result.transitions == 6
    told = [one.code for one in result.findings]
    assert told == ([] if name == "a link to itself" else ["unused-columns"])


@pytest.mark.parametrize(
    "limit",
    [
        "__import__('os').mkdir('executed')",
        "().__class__.__bases__[0].__subclasses__() > 1",
        "x.real > 1",
        "(lambda: 1)() > 0",
        "[x for x in (1, 2)] > 1",
        "x > 1 if x else x > 2",
        "(y := x) > 1",
        "f'{x}' > 1",
        "'a' > 'b'",
        "abs(x, x) > 1",
        "max(x) > 1",
        "open(x) > 1",
        "abs(x=1) > 1",
        "abs(*x) > 1",
        "x @ x > 1",
        "x // 2 > 1",
        "x in (1, 2)",
        "x is 1",
        "x > True",
        "x",
        "x + 1",
        "x > 1 and 2",
        "not x",
        "(x > 1) + 1 > 0",
        "1 > 2",
        "",
        "x >",
        "x > 1; y > 2",
        "x[y] > 1",
        "x[0][1] > 1",
        "x[-1] > 1",
        "x > 1e999",
        "x > " + "9" * 400,
        "x > 1\0",
        "(" * 5_000 + "x" + ")" * 5_000 + " > 1",
        "-" * 500 + "x > 1",
        "x > 1 " + "and x > 1 " * 1_000,
    ],
)
def test_what_is_no_limit_is_refused(tmp_path, monkeypatch, limit):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SafemesaError):
        parse_limit(limit)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("abs(x) > 1", [False, True, True]),
        ("x > 1 or y[1] < 0", [True, True, False]),
        ("not (x > 1 or y[1] < 0)", [False, False, True]),
        ("-1 <= x < 2", [True, False, False]),
        ("hypot(x, y[1]) >= 2 and max(x, y[1], 0) != 4", [False, True, False]),
        ("x ** 2 / 2 - 1 > -sqrt(4) * min(x, 0)", [False, True, False]),
        ("sin(0 * x) + cos(0 * x) == 1", [True, True, True]),
    ],
)
def test_limits_compute_what_they_say(limit, expected):
    values = {"x": np.array([0.5, 2.0, -3.0]), "y[1]": np.array([-1.0, 0.5, 4.0])}
    np.testing.assert_array_equal(parse_limit(limit).violated(values), expected)


def test_a_lost_signal_is_unknown_and_not_safe():
    values = {"x": np.array([0.0, np.nan, np.inf]), "y": np.array([2.0, 2.0, 2.0])}
    verdict = parse_limit("x > 1 or y > 1").violated(values)
    np.testing.assert_array_equal(np.isnan(verdict), [False, True, True])


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("sqrt(x) > 1", [0, np.nan, 1]),
        ("not sqrt(x) > 1", [1, np.nan, 0]),
        ("y / y > 2 or x > 3", [np.nan, 0, np.nan]),
        ("(x * 0 / y) ** 0 > 2", [np.nan, 0, np.nan]),
        ("min(x, sqrt(x)) > 1", [0, np.nan, 1]),
        ("x / y > 1", [0, 0, 1]),
    ],
)
def test_a_part_without_a_value_is_unknown_and_not_safe(limit, expected):
    """`0 / 0` and roots of negative numbers; a division by 0 alone is infinite, which compares."""
    values = {"x": np.array([0.0, -4.0, 4.0]), "y": np.array([0.0, 1.0, 0.0])}
    if limit == "x / y > 1":
        values["x"] = np.array([-1.0, 1.0, 4.0])
    np.testing.assert_array_equal(parse_limit(limit).violated(values), expected)


@pytest.mark.parametrize(
    "content",
    [
        "a = [" * 20_000,
        "horizon = " + "9" * 5000,
        "[" + "a." * 20_000 + "b]",
        "a." * 20_000 + "b = 1",
        "rows = 1",
        "[",
        "\xff",
        "x" * 2**21,
    ],
)
def test_hostile_maps_are_refused(tmp_path, content):
    (tmp_path / "map.toml").write_text(content, encoding="latin-1")
    began = time.perf_counter()
    with pytest.raises(SafemesaError):
        read_map(tmp_path / "map.toml")
    assert time.perf_counter() - began < SECONDS
    (tmp_path / "map.json").write_text(NESTED)
    with pytest.raises(SafemesaError):
        read_map(tmp_path / "map.json")


def test_a_wrong_cell_is_named_by_line_and_column(tmp_path):
    table = logs.table(logs.cart_log("a", 0, 3))
    path = logs.write_csv(tmp_path / "a.csv", table)
    lines = path.read_text().split("\n")
    cells = lines[4].split(",")
    lines[4] = ",".join([*cells[:3], "nonsense", *cells[4:]])
    path.write_text("\n".join(lines))
    with pytest.raises(SafemesaError, match=r"a.csv.*row 5, column 'velocity'.*nonsense"):
        import_logs([path], logs.cart_map(), tmp_path / "out")
