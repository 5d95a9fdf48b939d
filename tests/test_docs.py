"""Runs what the README and the docs show, and holds the site together: contents, links, names."""

import importlib
import re
import shlex
import subprocess
import sys
import types
from importlib import util
from pathlib import Path

import gymnasium
import pytest
from tiny import tiny_presets

import safemesa
from safemesa.cli.main import VERBS, main

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
FENCE = re.MULTILINE | re.DOTALL
BLOCK = re.compile(r"^```(console|python|toml)\n(.*?)^```$", FENCE)

RUN_ELSEWHERE = ("make ", "python -m benchmarks.speed", "pip install")
"""Commands of the docs that other tests, or continuous integration, run."""

EXTRAS = {
    "import_robots.md": ("rosbags", "mcap", "pyulog", "pyarrow"),
    "ros2.md": ("rosbags", "mcap", "pyulog", "pyarrow"),
}
"""Modules that a page needs, of extras that may be absent."""

GOES_ON = {"stable_baselines3.md": "pendulum.md", "ros2.md": "import_robots.md"}
"""Pages that begin in the folder where another one ends; both run in one test."""

WITHIN = ("pendulum.md",)
"""Pages that run only in the test of the page that goes on from them."""

LONG = ("tutorial.md", "cluster.md", "external_runs.md", "stable_baselines3.md", "ros2.md")
"""Pages that take long at any size."""

pages_with_blocks = [
    pytest.param(page, id=page.name)
    for page in PAGES
    if BLOCK.search(page.read_text()) and page.name not in WITHIN
]


class RandomAgent:
    """Stands in for Stable-Baselines3's SAC: its interface, and actions drawn at random."""

    def __init__(self, policy: str, env: gymnasium.Env, *, seed: int, device: str) -> None:
        assert (policy, device) == ("MlpPolicy", "cpu")
        self.env, self.seed = env, seed

    def learn(self, total_timesteps: int) -> None:
        self.env.action_space.seed(self.seed)
        self.env.reset(seed=self.seed)
        for _ in range(total_timesteps):
            _, _, terminated, truncated, _ = self.env.step(self.env.action_space.sample())
            if terminated or truncated:
                self.env.reset()


few_violations = pytest.mark.filterwarnings(
    "ignore::safemesa.phases.collection.logs.FewViolationsWarning"
)


@few_violations  # the bags of ros2.md are few; the page says so
@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with_blocks)
def test_the_page_runs_as_written(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make test-fresh` also runs the tutorial, as users would."""
    run_page(page, tmp_path, monkeypatch)


@few_violations
@pytest.mark.parametrize("page", [page for page in pages_with_blocks if page.id not in LONG])
def test_the_page_runs_with_tiny_presets(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command and block as written, on robots and networks of a size for tests."""
    tiny_presets(monkeypatch)
    run_page(page, tmp_path, monkeypatch)


def run_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks run in their order and in one folder; Python blocks share their names.

    A block that begins with the name of a file is that file.
    """
    for module in EXTRAS.get(page.name, ()):
        pytest.importorskip(module, reason=f"{page.name} needs an extra of safemesa")
    if page.name == "stable_baselines3.md" and util.find_spec("stable_baselines3") is None:
        # The agent is not what the page shows: shield, online risk and records run for real.
        agents = types.ModuleType("stable_baselines3")
        vars(agents)["SAC"] = RandomAgent
        monkeypatch.setitem(sys.modules, "stable_baselines3", agents)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    names: dict = {"__name__": "docs"}
    before = GOES_ON.get(page.name)
    text = page.read_text() if before is None else page.with_name(before).read_text()
    text += "" if before is None else page.read_text()
    for language, block in BLOCK.findall(text):
        if is_file(block, tmp_path) or language == "toml":
            continue
        if language == "python":
            exec(compile(block, str(page), "exec"), names)
            continue
        for line in block.splitlines():
            command = line.split("#")[0].strip()
            if not command or command.startswith(RUN_ELSEWHERE):
                continue
            words = shlex.split(command)
            assert words[0] == "safemesa", f"{page.name} shows {command!r}, which no test runs"
            if "--help" not in words:
                assert main(words[1:]) == 0, command


def is_file(block: str, folder: Path) -> bool:
    """Whether a block shows a file, which is then written."""
    name = re.match(r"# (\w+\.(?:py|toml))\n", block)
    if name:
        (folder / name[1]).write_text(block)
        importlib.invalidate_caches()
        sys.modules.pop(Path(name[1]).stem, None)
    return bool(name)


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, by GitHub's rules."""
    names: set[str] = set()
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=FENCE)
    for heading in re.findall(r"^#+ (.+)$", prose, re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        name = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        number = 0
        while (unique := f"{name}-{number}" if number else name) in names:
            number += 1
        names.add(unique)
    return names


def test_links_lead_somewhere() -> None:
    """Files and headings, in the README, the docs and the other pages at the root."""
    for page in sorted({*PAGES, *ROOT.glob("*.md")}):
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if re.match(r"[a-z]+:", link):
                continue
            target, _, anchor = link.partition("#")
            place = page.parent / target if target else page
            assert place.exists(), f"{page.name} links to {target}"
            if anchor:
                assert anchor in anchors(place), f"{page.name} links to {link}"


def test_every_page_is_in_the_contents() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    trees = re.findall(r"^```\{toctree\}\n(.*?)^```$", index, FENCE)
    listed = [line for tree in trees for line in tree.splitlines() if line and line[0] != ":"]
    assert sorted(listed) == sorted(page.stem for page in PAGES[1:] if page.stem != "index")
    assert [page for page in listed if f"({page}.md)" not in index] == []


def test_the_reference_has_every_verb_and_every_public_name() -> None:
    commands = (ROOT / "docs" / "cli.md").read_text()
    shown = re.findall(r"^```\{safemesa-help\} (\S+)$", commands, re.MULTILINE)
    assert sorted(shown) == sorted(VERBS)
    interface = (ROOT / "docs" / "api.md").read_text()
    documented = re.findall(r"^\.\. auto\w+:: (?:safemesa\.)?(\w+)$", interface, re.MULTILINE)
    assert "automodule:: safemesa.core.errors" in interface  # SafemesaError and its kinds
    assert set(safemesa.__all__) - {"SafemesaError"} <= set(documented)


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    for module in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(module, reason="needs the extra safemesa[docs]")
    command = f"{sys.executable} -m sphinx -b html -W --keep-going -n -q docs"
    built = subprocess.run(
        [*command.split(), tmp_path / "html"], cwd=ROOT, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    site = tmp_path / "html"
    assert "--data.train-tasks" in (site / "cli.html").read_text()
    for page in PAGES[1:]:
        assert (site / f"{page.stem}.html").is_file()


@pytest.mark.parametrize("page", ["add_a_guard.md", "add_a_meta_learner.md", "add_a_recovery.md"])
def test_extending_takes_one_file_of_less_than_forty_lines(
    page: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its settings are shown by the help that the page shows, which is quick."""
    monkeypatch.syspath_prepend(tmp_path)
    blocks = BLOCK.findall((ROOT / "docs" / page).read_text())
    files = [block for language, block in blocks if language == "python"]
    assert len(files) == 1
    assert is_file(files[0], tmp_path)
    assert len(files[0].splitlines()) < 40
    (command,) = [
        line for _, block in blocks for line in block.splitlines() if line.endswith("--help")
    ]
    with pytest.raises(SystemExit):
        main(shlex.split(command)[1:])
    shown = capsys.readouterr().out
    (field, text), *_ = re.findall(r'    (\w+): \w+ = \S+\n    """(.+)"""', files[0])
    assert f".{field}" in shown
    assert text.split()[-1] in shown
