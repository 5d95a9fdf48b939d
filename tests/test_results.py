"""Committed results: tables and README say what the committed runs say."""

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.shield_training import read_records, table_of

from safemesa.experiments.measures.run_contents import late_return
from safemesa.experiments.paper import verdicts
from safemesa.experiments.paper.claims_table import (
    claims_markdown,
    claims_summary,
    gathered_claims,
    read_findings,
)
from safemesa.experiments.paper.verdicts import findings
from safemesa.experiments.report.overall_rows import overall_rows
from safemesa.experiments.report.power_table import power_text
from safemesa.experiments.report.result_files import (
    BASELINE,
    PairedRow,
    ResultRow,
    RunRecord,
    RunScan,
    find_runs,
    group_runs,
    paired_rows,
    results_table,
    scan_runs,
)
from safemesa.experiments.report.result_tables import compact_markdown, results_markdown
from safemesa.experiments.report.seed_power import power_rows
from safemesa.experiments.runs.episode_lines import read_episode_lines
from safemesa.experiments.runs.packed_runs import RUNS_FILE, PackedRuns

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
SHOWN = {
    "comparisons_cpu": ("docs/guards.md", "results"),
    "look_ahead_cpu": ("docs/results.md", "tuned"),
}
"""Folder of runs to the page that shows its table, and the marks between which it does."""

REPORTED = sorted(file.parent.name for file in RESULTS.glob("*/results.md"))
"""Folders of runs with a page of results of their own."""


@functools.cache
def committed(folder: str) -> RunScan:
    return scan_runs([RESULTS / folder])


@functools.cache
def rows_of(folder: str) -> list[ResultRow]:
    return results_table(committed(folder).runs)


@functools.cache
def pairs_of(folder: str, baseline: str) -> list[PairedRow]:
    return paired_rows(committed(folder).runs, baseline)


@pytest.mark.parametrize("folder", SHOWN)
def test_pages_show_the_committed_results(folder: str) -> None:
    page, mark = SHOWN[folder]
    expected = compact_markdown(rows_of(folder))
    assert expected in block(page, mark), f"put this table between the marks of {page}:\n{expected}"


@pytest.mark.parametrize("folder", REPORTED)
def test_results_md_is_made_from_the_committed_runs(folder: str) -> None:
    """`safemesa report results/FOLDER --out results/FOLDER --no-calibration` made it."""
    text = (RESULTS / folder / "results.md").read_text()
    (command,) = re.findall(r"^Table: `(.*)`$", text, re.MULTILINE)
    scan, pairs = committed(folder), pairs_of(folder, BASELINE)
    groups = group_runs(scan.runs)
    assert text == results_markdown(
        rows_of(folder), pairs, groups, command, scan.set_aside, BASELINE
    )


VERDICTS = {
    "navigation": "paper",
    "maze": "paper",
    "cartpole": "paper",
    "robots_cpu": "cpu",
    "comparisons_cpu": "cpu",
    "test_log_cpu": "cpu",
}
"""Folder to the preset of its runs, in the order in which a claim is looked for."""


@pytest.mark.parametrize("name", VERDICTS)
def test_verdicts_are_made_from_the_committed_runs(name: str) -> None:
    """`safemesa paper claims --out results/NAME --preset PRESET` made them."""
    folder, preset = RESULTS / name, VERDICTS[name]
    found = findings(committed(name).runs, preset, folder / "calibration.json")
    assert (
        (folder / "claims.md")
        .read_text()
        .startswith(f"{claims_summary(found)}\n\n{claims_markdown(found)}")
    )
    assert read_findings(folder) == found


def block(page: str, mark: str) -> str:
    """What a page shows between marks."""
    text = (ROOT / page).read_text()
    return text.split(f"<!-- {mark}:begin -->")[1].split(f"<!-- {mark}:end -->")[0]


CLAIM_FOLDERS = [RESULTS / name for name in VERDICTS]


def test_one_page_shows_every_claim() -> None:
    """`safemesa paper verdicts` on these folders prints the table."""
    expected = gathered_claims(CLAIM_FOLDERS)
    assert (RESULTS / "claims.md").read_text().endswith(f"\n\n{expected}"), expected


GROUPS = {
    "Without a shield robots collide often and learn nothing (Navigation)": "navigation._uncon.*",
    "MESA violates less than Multi-Task and RRL (Navigation)": "navigation._fewer.*",
    "MESA solves the task as often as the best (Navigation)": "navigation._success",
    "CARL is best on Navigation 1 and stalls on Navigation 2": "navigation._carl.*",
    "MESA violates least on HalfCheetah, at a similar return": "halfcheetah_(viol|fewer|return).*",
    "MESA violates least on Ant, at a similar return": "ant_(viol|fewer|return).*",
    "CARL makes little progress and satisfies constraints (robots)": "(halfcheetah|ant)_carl.*",
    "MESA violates less on Cartpole, at a comparable return": "cartpole_.*",
    "MESA degrades with an eighth of the test log, not with a quarter": "test_size.*",
    "MESA violates less than Multi-Task under partial failures": "partial.*",
    "The risk of MESA adapts in fewer steps (Maze)": "maze.*",
    "The risk begins pessimistic and becomes less so": ".*pessimis.*",
}
"""What claims say together, to a pattern of their names."""


def test_the_results_page_groups_the_claims() -> None:
    folders = [read_findings(folder) for folder in CLAIM_FOLDERS]
    measured = {
        one.claim.id: one
        for found in reversed(folders)
        for one in found
        if one.verdict != "not measured"
    }
    lines = ["| the paper says | claims | hold | settled |", "|---|---|---|---|"]
    sorted_in: list[str] = []
    for title, pattern in GROUPS.items():
        group = [one for name, one in measured.items() if re.fullmatch(pattern, name)]
        sorted_in += [one.claim.id for one in group]
        holds = sum(one.verdict == "holds" for one in group)
        settled = sum(bool(one.settled) for one in group)
        lines.append(f"| {title} | {len(group)} | {holds} | {settled} |")
    assert sorted(sorted_in) == sorted(measured), "each claim is in one group"
    holds = sum(one.verdict == "holds" for one in measured.values())
    page = " ".join((ROOT / "docs" / "results.md").read_text().split())
    assert f"Of the paper's {len(measured)} claims {holds} hold by their means" in page
    expected = "\n".join(lines)
    assert expected in block("docs/results.md", "groups"), f"put this there:\n{expected}"


OUTCOMES = {
    "navigation": "",
    "navigation1_pairs": "",
    "cartpole": "",
    "robots_cpu": "",
    "look_ahead_cpu": ", chosen settings",
}
"""Folder to what its rows of the outcome are called besides domain and preset."""


def test_the_results_page_opens_with_the_outcome() -> None:
    lines = ["| domain (runs) | MESA | Multi-Task | RRL | no shield |", "|---|---|---|---|---|"]
    for folder, note in OUTCOMES.items():
        rows = {(row.domain, row.preset, row.arm): row for row in rows_of(folder)}
        for domain, preset in dict.fromkeys((row.domain, row.preset) for row in rows.values()):
            cells, seeds = [], set()
            for arm in ("mesa", "multitask", "rrl", "unconstrained"):
                row = rows.get((domain, preset, arm))
                violations = None if row is None else row.metrics["violations"]
                if row is None or violations is None:
                    cells.append("-")
                    continue
                seeds.add(row.seeds)
                cells.append(f"{violations.mean:.1f} ± {violations.standard_error:.1f}")
            assert len(seeds) == 1
            count = len(seeds.pop())
            lines.append(f"| {domain}, {preset}{note} ({count}) | " + " | ".join(cells) + " |")
    expected = "\n".join(lines)
    assert expected in block("docs/results.md", "outcome"), f"put this there:\n{expected}"


def test_the_results_page_shows_the_errors_of_figure_2() -> None:
    rows = json.loads((RESULTS / "maze" / "calibration.json").read_text())["rows"]
    steps = sorted({row["step"] for row in rows})
    lines = ["| arm | " + " | ".join(map(str, steps)) + " |", "|---" * (len(steps) + 1) + "|"]
    for arm, title in (("mesa", "MESA"), ("multitask", "Multi-Task")):
        found = [
            [row["brier"] for row in rows if (row["arm"], row["step"]) == (arm, step)]
            for step in steps
        ]
        assert {len(one) for one in found} == {5}
        lines.append(f"| {title} | " + " | ".join(f"{np.mean(one):.4f}" for one in found) + " |")
    expected = "\n".join(lines)
    assert expected in block("docs/results.md", "maze"), f"put this there:\n{expected}"


def test_what_counts_as_adapted_decides_as_the_results_page_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = " ".join((ROOT / "docs" / "results.md").read_text().split())
    for within, mesa, multitask in ((1.05, 25, 44), (1.02, 63, 46)):
        monkeypatch.setattr(verdicts, "SETTLED", within)
        found = findings([], "paper", RESULTS / "maze" / "calibration.json")
        (one,) = [one for one in found if one.claim.id == "maze_adapts_faster"]
        assert one.means == pytest.approx({"mesa": mesa, "multitask": multitask}, abs=0.5)
    assert "within 5 % (25 steps against 44)" in page
    assert "within 2 % (63 against 46)" in page


def test_the_smallest_size_asks_for_more_pairs() -> None:
    (row,) = power_rows(find_runs([RESULTS / "tuning" / "navigation1_quick"]))
    (other,) = power_rows(find_runs([RESULTS / "navigation1_pairs"]))
    assert row.needed is not None
    assert other.needed is not None
    assert row.needed > other.needed


def test_the_results_page_shows_how_many_pairs_it_takes() -> None:
    """`safemesa power` on these folders."""
    names = ("navigation", "cartpole", "robots_cpu", "navigation1_pairs")
    folders = [RESULTS / name for name in names]
    header, line, *rows = power_text(power_rows(find_runs(folders)), 0.25).splitlines()
    shown = [row for row in rows if "| MESA - Multi-Task |" in row]
    assert len(shown) == 8
    expected = "\n".join([header, line, *shown])
    assert expected in block("docs/results.md", "power"), f"put this there:\n{expected}"


def test_the_results_page_shows_the_logs() -> None:
    """`safemesa data info DATA --json results/logs_cpu/DOMAIN.json` made these numbers."""
    expected = []
    for domain in ("cartpole", "halfcheetah", "ant"):
        files = sorted((RESULTS / "logs_cpu").glob(f"{domain}*.json"))
        tasks = [one for file in files for one in json.loads(file.read_text())["tasks"]]
        logs = {role: [one for one in tasks if one["role"] == role] for role in ("train", "test")}
        rates = [100 * one["violation_rate"] for one in logs["train"]]
        returns = [one["mean_return"] for one in logs["train"]]
        (size,) = {one["transitions"] for one in logs["train"]}
        (test,) = logs["test"]
        expected.append(
            f"| {domain} | {len(rates)} x {size} | {min(rates):.0f} to {max(rates):.0f} % | "
            f"{min(returns):.0f} to {max(returns):.0f} | {test['transitions']} | "
            f"{100 * test['violation_rate']:.1f} % |"
        )
    table = "\n".join(expected)
    assert table in block("docs/results.md", "logs"), f"put this there:\n{table}"


def test_the_shield_page_shows_the_committed_trainings() -> None:
    expected = table_of(read_records(RESULTS / "shield" / "training.jsonl"))
    assert expected in block("docs/shield.md", "training"), (
        f"put this table between the marks of docs/shield.md:\n{expected}"
    )


EQUAL_SETTINGS = {
    "preset": "the preset",
    "limit": "limit .3",
    "look-ahead": "gamma_risk .95, limit .5",
    "noise": "recovery without noise",
    "logged": "logged next actions",
    "uniform": "violations as they come",
    "own-1": "own 1",
    "own-2": "own 2",
}


def runs_of(arm: str, folder: Path) -> list[RunRecord]:
    """Runs of an arm, by name: those that say the same as others too."""
    return [run for run in find_runs([folder]) if run.arm == arm]


def equal_tuning() -> dict[str, dict[str, tuple[list[int], float]]]:
    """By arm and setting: violations of both seeds, and the mean return in the last third."""
    found: dict[str, dict[str, tuple[list[int], float]]] = {}
    for arm in ("mesa", "multitask", "rrl"):
        for setting in EQUAL_SETTINGS:
            folder = RESULTS / "tuning" / "halfcheetah_equal" / setting
            runs = [run for name in (arm, f"{arm}_metasgd") for run in runs_of(name, folder)]
            assert len(runs) == 2
            counts = [run.summary["violations"] for run in runs]
            late = float(np.mean([late_return(read_episode_lines(run.path)) for run in runs]))
            found.setdefault(arm, {})[setting] = counts, late
    return found


def test_the_page_of_tuning_shows_the_equal_tuning() -> None:
    found = equal_tuning()
    lines = ["| setting | MESA | Multi-Task | RRL |", "|---|---|---|---|"]
    for setting, title in EQUAL_SETTINGS.items():
        cells = [
            f"{counts[0]}, {counts[1]} ({late:.0f})"
            for counts, late in (one[setting] for one in found.values())
        ]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    expected = "\n".join(lines)
    assert expected in block("results/tuning/README.md", "tuning"), f"put this there:\n{expected}"


def test_the_equal_tuning_chose_by_its_rule() -> None:
    """Fewest violations among settings with four fifths of the return of the preset."""
    for settings in equal_tuning().values():
        bar = 0.8 * settings["preset"][1]
        allowed = {name: sum(counts) for name, (counts, late) in settings.items() if late >= bar}
        assert min(allowed, key=allowed.__getitem__) == "look-ahead"
    for run in find_runs([RESULTS / "look_ahead_cpu"]):
        assert run.settings["risk"]["gamma_risk"] == 0.95
        assert run.config.risk_limit in (0.5, None)  # None: a guard that asks for no risk


def test_the_page_of_tuning_shows_the_committed_look_aheads() -> None:
    """Violations and successes of each setting, seed by seed, in one row of the table."""
    page = (RESULTS / "tuning" / "README.md").read_text().splitlines()
    folder = RESULTS / "tuning" / "cartpole_limit"
    settings = sorted({name.split("/")[0] for name in PackedRuns(folder).configs})
    assert len(settings) > 1
    for setting in settings:
        runs = sorted(find_runs([folder / setting]), key=lambda run: run.name)
        cells = [
            ", ".join(str(run.summary[key]) for run in runs) for key in ("violations", "successes")
        ]
        assert any(line.endswith(f"| {' | '.join(cells)} |") for line in page), (setting, cells)


def test_the_page_of_tuning_shows_what_recovery_does_alone() -> None:
    page = " ".join((RESULTS / "tuning" / "README.md").read_text().split())
    text = (RESULTS / "tuning" / "cartpole_limit" / "recovery_alone.jsonl").read_text()
    linear, *models = [json.loads(line) for line in text.splitlines()]
    assert linear == {"controller": "linear", "violated": 0.0}

    def adapted(arm: str, gamma: float, policy: str) -> list[float]:
        return [
            one["violated"][policy]
            for one in models
            if one["risk_model"] == "risk_model" and one["next_action"] == "uniform"
            if (one["arm"], one["gamma_risk"]) == (arm, gamma)
        ]

    assert adapted("multitask", 0.8, "recovery") == [0.9, 0.9]
    assert adapted("multitask", 0.8, "least_risk") == [0.875, 0.8]
    assert adapted("multitask", 0.95, "recovery") == [0.6, 0.7]
    assert adapted("multitask", 0.95, "least_risk") == [0.2, 0.35]
    assert adapted("mesa", 0.95, "least_risk") == [0.925, 0.675]
    for words in (".90 of them", ".875 and .80", ".60 and .70", ".20 and .35", ".925 and .675"):
        assert words in page


def test_the_page_of_tuning_shows_what_chose_the_test_log() -> None:
    page = " ".join((RESULTS / "tuning" / "README.md").read_text().split())
    for arm, title in (("mesa", "MESA"), ("multitask", "Multi-Task")):
        pairs = []
        for setting in ("keep", "quarter", "forget"):
            runs = runs_of(arm, RESULTS / "tuning" / "test_log" / setting)
            pairs.append(" and ".join(str(run.summary["violations"]) for run in runs))
        assert f"{title} {', '.join(pairs)}" in page


def packed_folders() -> list[Path]:
    return [file.parent for file in sorted(RESULTS.rglob(RUNS_FILE))]


def test_each_summary_counts_its_lines() -> None:
    assert packed_folders()
    for folder in packed_folders():
        pack = PackedRuns(folder)
        for name, summary in pack.summaries.items():
            lines = pack.lines(name)
            assert summary["episodes"] == len(lines)
            assert summary["violations"] == sum(line["violation"] for line in lines)
            assert summary["interventions"] == sum(line["interventions"] for line in lines)


def test_results_stay_small_and_packed() -> None:
    """See results/README.md: `safemesa pack` takes run folders."""
    files = [file for file in RESULTS.rglob("*") if file.is_file()]
    assert not [file for file in files if file.name in ("config.json", "metrics.jsonl")]
    assert len(files) < 120
    assert sum(file.stat().st_size for file in files) < 8_000_000


NUMBER = r"[-+]?\d*\.?\d+"
Effect = tuple[float | None, float | None, float | None]
EFFECT = re.compile(rf"({NUMBER}) \[({NUMBER}), ({NUMBER})\]")


@pytest.mark.parametrize("page", ["README.md", "docs/results.md", "docs/fidelity.md"])
def test_each_interval_on_a_page_is_one_of_the_committed_results(page: str) -> None:
    """`-31 [-44, -18]` anywhere on a page: some mean and its interval round to that."""
    text = " ".join((ROOT / page).read_text().split())
    known = committed_intervals()
    shown = EFFECT.findall(text)
    strange = [one for one in shown if not any(all(map(rounds_to, row, one)) for row in known)]
    assert not strange
    assert shown or page != "docs/results.md"


@functools.cache
def committed_intervals() -> list[Effect]:
    """Mean or difference, low and high, of everything in results/."""
    return list(_intervals())


def _intervals() -> Iterator[Effect]:
    for name in REPORTED:
        for row in rows_of(name):
            yield from (effect(asdict(one)) for one in row.metrics.values() if one is not None)
        for row in overall_rows(group_runs(committed(name).runs)):
            yield row.share, *(row.interval or (None, None))
            yield row.better, *(row.better_interval or (None, None))
        # `safemesa report results/NAME --baseline rrl` has the second, and so on.
        for baseline in ("multitask", "rrl", "unconstrained"):
            for pair in pairs_of(name, baseline):
                yield effect(asdict(pair.difference))
    for path in RESULTS.glob("*/claims.json"):
        for one in json.loads(path.read_text())["findings"]:
            yield one["effect"], one["low"], one["high"]


def effect(numbers: dict[str, Any]) -> Effect:
    return numbers["mean"], numbers["low"], numbers["high"]


def rounds_to(value: float | None, text: str) -> bool:
    """Whether a number is what the text shows, to the digits that it shows."""
    digits = len(text.partition(".")[2])
    return value is not None and abs(value - float(text)) <= 0.5 * 10.0**-digits + 1e-9
