"""Runs what the README and the docs show: every `safemesa` command and every Python block."""

import re
import shlex
from pathlib import Path

import pytest

from safemesa.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

RUN_ELSEWHERE = ("make ", "python -m benchmarks.speed", "pip install")
"""Commands of the docs that other tests, or continuous integration, run."""

pages_with_blocks = [page for page in PAGES if BLOCK.search(page.read_text())]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", pages_with_blocks, ids=lambda page: page.name)
def test_the_page_runs_as_written(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks run in their order and in one folder; Python blocks share their names."""
    monkeypatch.chdir(tmp_path)
    # Processes that grids start would write into the user's own cache.
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    for module in ("run", "phases", "report", "calibration", "demo", "shield", "evaluate"):
        monkeypatch.setattr(f"safemesa.cli.{module}.prepare_jax", lambda: None)
    names: dict = {"__name__": "docs"}
    for language, block in BLOCK.findall(page.read_text()):
        if language == "python":
            exec(compile(block, str(page), "exec"), names)
            continue
        for line in block.splitlines():
            command = line.split("#")[0].strip()
            if not command or command.startswith(RUN_ELSEWHERE):
                continue
            words = shlex.split(command)
            assert words[0] == "safemesa", f"{page.name} shows {command!r}, which no test runs"
            assert main(words[1:]) == 0, command


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", ["add_a_guard.md", "add_a_meta_learner.md"])
def test_extending_takes_less_than_forty_lines(page: str) -> None:
    blocks = [block for _, block in BLOCK.findall((ROOT / "docs" / page).read_text())]
    assert 0 < sum(len(block.splitlines()) for block in blocks) < 40
