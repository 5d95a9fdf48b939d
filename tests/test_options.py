"""Nonsense for any option of any verb ends in exit code 2 and a sentence, before any work."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from nonsense import ODD, SECTION, VERBS, Option, options, workplace, wrong_values

from safemesa.cli.main import VERBS as NAMES, main

# The logs here are small.
pytestmark = pytest.mark.filterwarnings(
    "ignore::safemesa.phases.collection.logs.FewViolationsWarning"
)


class BegunError(Exception):
    """A verb took its options and began to work."""


WORK = (
    "safemesa.phases.run.run",
    "safemesa.phases.run.adopt",
    "safemesa.phases.collection.logs.collect_train_logs",
    "safemesa.phases.meta_train.meta_train",
    "safemesa.phases.adapt.adapt",
    "safemesa.experiments.measures.calibrate_runs.held_out_tasks",
    "safemesa.experiments.headroom.measure_headroom.measure",
    "safemesa.experiments.recovery_skill.measure_skill.measure_skill",
    "safemesa.experiments.grid.executors.local.prepare_runs",
    "safemesa.experiments.report.report_page.write_results",
    "safemesa.experiments.runs.pack_runs.write_packed_runs",
    "safemesa.experiments.report.power_table.power_text",
    "safemesa.experiments.paper.settings_tables.tables_markdown",
    "safemesa.experiments.paper.claims_table.findings",
    "safemesa.experiments.measures.log_evaluation.evaluate_held_out",
    "safemesa.experiments.measures.log_evaluation.evaluate_left_out",
    "safemesa.datasets.importers.write.ColumnFiles",
    "safemesa.datasets.exporters.atomic_folder",
    "safemesa.shield.export.atomic_folder",
)
"""What verbs do when all is well; here it is not done."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("options")
    workplace(root)
    return root


@pytest.fixture(autouse=True)
def _nothing_works(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def begin(*_: object, **__: object) -> None:
        raise BegunError

    monkeypatch.chdir(place)
    for name in WORK:
        monkeypatch.setattr(name, begin)
    yield
    shutil.rmtree("new", ignore_errors=True)


def outcome(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """`refused`, `begun`, or what is wrong with how it was refused."""
    capsys.readouterr()
    try:
        code = main(words)
    except SystemExit as stop:
        code = stop.code
    except BegunError:
        return "begun"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    said = capsys.readouterr().err
    if code == 0:
        return "begun"
    if code != 2 or "Traceback" in said:
        return f"exit code {code}: {said[:200]}"
    return "refused" if len(said.split()) > 4 else f"says only {said!r}"


def problems(
    option: Option,
    values: list[str],
    capsys: pytest.CaptureFixture[str],
    right: tuple[str, ...] = ("refused",),
) -> list[str]:
    found = []
    for value in values:
        result = outcome(option.words(value), capsys)
        if result not in right:
            found.append(f"safemesa {option.verb} {option.name} {value[:40]!r}: {result}")
    return found


def test_every_verb_has_a_command_line_here() -> None:
    assert {name.split()[0] for name in VERBS} == set(NAMES) - {"doctor"}


@pytest.mark.parametrize("verb", VERBS)
def test_without_nonsense_they_begin(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Else nothing of what follows would be about the option."""
    assert outcome([*verb.split(), *VERBS[verb]], capsys) == "begun"


@pytest.mark.parametrize("verb", VERBS)
def test_some_nonsense_is_refused(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(verb)
    known = options(verb, capsys)
    found = []
    for option in draw.sample(known, min(len(known), 3)):
        values = list(wrong_values(option))
        found += problems(option, draw.sample(values, min(len(values), 2)), capsys)
    assert found == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("verb", VERBS)
def test_all_nonsense_is_refused(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The settings of phases are one record: all values of each are tried with `run`."""
    draw = random.Random(verb)
    found = []
    for option in options(verb, capsys):
        values = list(wrong_values(option))
        if SECTION.match(option.name) and verb != "run":
            values = draw.sample(values, 1)
        found += problems(option, values, capsys)
        odd = draw.sample(ODD, 2)
        found += problems(option, odd, capsys, ("refused", "begun"))
    assert found == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "mesa", "navigation2", "--seeds", "300000000"], "--seeds is 300000000"),
        (["grid", "--seeds", "0-300000000"], "--seeds is '0-300000000'"),
        (["run", "mesa", "navigation2", "--jobs", "300000000"], "--jobs is 300000000"),
        (["run", "mesa", "navigation2", "--out", ""], "argument 5, after --out, is empty"),
        (["run", "", "navigation2"], "argument 2 is empty"),
        (["report", "runs", "--out="], "argument 3, after --out, is empty"),
        (["report", "\udcff"], "no text in UTF-8"),
        (["report", "runs", "--baseline", "x" * 5000], "has 5000 characters"),
        (["evaluate", "prior", "data", "--out", "folder"], "cannot write folder: it is a folder"),
        (["adapt", "file.txt", "data", "--out", "new"], "file.txt/manifest.json"),
        (["data", "info", "file.txt"], "file.txt is no dataset folder"),
        (["data", "import", "logs", "--map", "folder"], "folder"),
        (["paper", "claims", "--out", "runs", "--preset", "cpu"], "has no run of the preset 'cpu'"),
    ],
)
def test_what_is_refused_is_named(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_claims_take_the_preset_of_the_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BegunError):
        main(["paper", "claims", "--out", "runs"])
