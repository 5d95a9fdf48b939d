"""What someone who installs or clones the project relies on."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest

import safemesa
from safemesa._version import __version__

ROOT = Path(__file__).resolve().parents[1]

# Written in halves, so that this file holds none of them.
REGISTRY_HOSTS = [
    name + "." + top
    for name, top in [
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("download.pytorch", "org"),
        ("anaconda", "org"),
        ("npmjs", "org"),
    ]
]


def tracked_files() -> list[Path]:
    """Files that are in the repository or would be added to it."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    paths = (ROOT / name for name in listing.stdout.split("\0") if name)
    return [path for path in paths if path.is_file()]


def test_version_has_a_single_source():
    assert safemesa.__version__ == __version__
    assert importlib.metadata.version("safemesa") == __version__
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.findall(r"^version: (\S+)$", citation, re.MULTILINE) == [__version__]


def test_import_is_cheap():
    code = (
        "import sys, safemesa; "
        "print(*{'jax', 'equinox', 'matplotlib', 'mujoco', 'torch'} & set(sys.modules))"
    )
    # -W error: a warning at import would reach every user.
    imported = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert imported.stdout.split() == []


def test_import_registers_the_environments():
    assert "safemesa/Navigation1-v0" in gymnasium.registry


def test_public_names_resolve():
    for name in safemesa.__all__:
        assert getattr(safemesa, name) is not None
    assert set(safemesa.__all__) <= set(dir(safemesa))


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = safemesa.no_such_name


def test_types_are_shipped():
    assert (Path(safemesa.__file__).parent / "py.typed").is_file()


def test_licence_is_the_whole_apache_licence():
    licence = (ROOT / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0, January 2004" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
    assert "APPENDIX: How to apply the Apache License to your work." in licence
    assert importlib.metadata.metadata("safemesa")["License-Expression"] == "Apache-2.0"


def test_no_tracked_file_names_a_package_registry():
    found = [
        f"{path.relative_to(ROOT)}: {host}"
        for path in tracked_files()
        for host in REGISTRY_HOSTS
        if host.encode() in path.read_bytes()
    ]
    assert found == []


def test_lock_is_portable():
    lock = (ROOT / "requirements-dev.lock").read_text()
    pins = [line for line in lock.splitlines() if not re.match(r"\s*(#|$)", line)]
    pin = re.compile(r"^[a-z0-9.-]+(\[[a-z0-9,-]+\])?==[0-9a-z.]+( ; .+)?$")
    assert [line for line in pins if not pin.match(line)] == []
    assert "torch" not in {line.split("==")[0] for line in pins}
    # Neither an address nor an absolute path, in pins or comments.
    assert re.findall(r"\S*://\S*|(?<=\s)/\S+", lock) == []
