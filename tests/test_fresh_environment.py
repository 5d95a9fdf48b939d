"""Pages as a newcomer meets them: the built wheel, a fresh environment, an empty folder."""

import os
import re
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def run(command: list[str | Path], folder: Path, **settings: str) -> str:
    """What a command prints; its whole output where it fails."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel, and the commands of an environment that holds nothing but pip."""
    place = tmp_path_factory.mktemp("fresh")
    pip = [sys.executable, "-m", "pip"]
    wheel = [*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", place / "dist", ROOT]
    built = subprocess.run(wheel, cwd=place, capture_output=True, text=True)
    if built.returncode != 0 and "No matching distribution" in built.stderr:
        pytest.skip("no package index can be reached, so no environment can be made")
    assert built.returncode == 0, built.stderr
    venv.create(place / "environment", with_pip=True)
    folder = place / "environment" / ("Scripts" if os.name == "nt" else "bin")
    (path,) = (place / "dist").glob("*.whl")
    return path, folder


def test_the_ready_shield_shows_itself(fresh: tuple[Path, Path], tmp_path: Path) -> None:
    """With the dependencies of the package alone, from an empty folder."""
    wheel, binaries = fresh
    run([binaries / "python", "-m", "pip", "install", "--quiet", wheel], tmp_path)
    work = tmp_path / "empty"
    work.mkdir()
    began = time.perf_counter()
    printed = run([binaries / "safemesa", "demo", "--shield"], work, PYTHONPATH="")
    assert time.perf_counter() - began < 15.0
    assert len(printed.splitlines()) == 4
    assert (work / "runs" / "demo_shield" / "report.html").stat().st_size > 50_000


@pytest.mark.parametrize(("page", "extras"), [("import_csv.md", ""), ("tutorial.md", "[plots]")])
def test_the_page_works_as_written(
    page: str, extras: str, fresh: tuple[Path, Path], tmp_path: Path
) -> None:
    """Every command and every script, in their order; a script is a program of its own.

    The page without extras comes first, so that nothing else is installed then.
    """
    wheel, binaries = fresh
    run([binaries / "python", "-m", "pip", "install", "--quiet", f"{wheel}{extras}"], tmp_path)
    work = tmp_path / "empty"
    work.mkdir()
    # Nothing of the environment that runs the tests may help.
    settings = {
        "PATH": os.pathsep.join([str(binaries), os.defpath]),
        "PYTHONPATH": "",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
    }
    printed = ""
    for language, block in BLOCK.findall((ROOT / "docs" / page).read_text()):
        if language == "python":
            printed += run([binaries / "python", "-c", block], work, **settings)
            continue
        for line in block.splitlines():
            command = line.split("#")[0].split()
            if command and command[0] != "pip":
                assert command[0] == "safemesa"
                printed += run([binaries / "safemesa", *command[1:]], work, **settings)
    for words in ("No defects found.", "AUROC with shuffled costs", "The shield is sound."):
        assert words in printed
    assert "NOT SOUND" not in printed
    assert "Traceback" not in printed
