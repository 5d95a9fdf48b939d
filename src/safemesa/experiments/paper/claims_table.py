"""The verdicts as Markdown and as JSON."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from safemesa.core.errors import DatasetError
from safemesa.core.files import read_json, write_atomic, write_json
from safemesa.core.outputs import check_outputs
from safemesa.experiments.arms import ARMS
from safemesa.experiments.paper.claims import CLAIMS
from safemesa.experiments.paper.verdicts import Finding, findings
from safemesa.experiments.report.result_rows import arm_title
from safemesa.experiments.runs.run_records import find_runs
from safemesa.experiments.statistics.across_seeds import MINIMUM_FOR_VERDICT


def claims_markdown(found: Sequence[Finding]) -> str:
    """One row per claim."""
    lines = [
        "| claim | source | domain | measured | difference [95 % interval] | n | verdict |",
        "|---|---|---|---|---|---|---|",
        *(_line(one) for one in found),
    ]
    return "\n".join(lines) + "\n"


def claims_summary(found: Sequence[Finding]) -> str:
    """How many hold, in words."""
    counts = Counter(one.verdict for one in found)
    settled = sum(1 for one in found if one.settled)
    return (
        f"{len(found)} claims: {counts['holds']} hold by their means, {counts['does not hold']} do "
        f"not, {counts['not measured']} are not measured. {settled} of these verdicts are settled: "
        f"the sign-flip test finds the same at 5 %, which takes {MINIMUM_FOR_VERDICT} seeds."
    )


def write_claims(out: Path, preset: str | None, calibration: Path | None, command: str) -> str:
    """Holds all claims against the runs below `out`; writes claims.md and claims.json there.

    Without a preset it is that of all runs there. Returns the Markdown.

    Raises:
        DatasetError: there is no finished run of the preset, or no such file.
        OutputFolderError: the folder holds files of those names that are not ours.
    """
    check_outputs(out, ("claims.md", "claims.json"))
    runs = find_runs([out])
    there = dict.fromkeys(run.preset for run in runs)
    if preset is None and len(there) == 1:
        (preset,) = there
    if preset is None:
        raise DatasetError(
            f"{out} has runs of the presets {', '.join(there)}, which are never mixed. Choose one "
            "by --preset."
        )
    if preset not in there:
        raise DatasetError(
            f"{out} has no run of the preset {preset!r}. Its runs are of {', '.join(there)}: give "
            "--preset."
        )
    if calibration is not None and not calibration.is_file():
        raise DatasetError(
            f"{calibration} is no file. `safemesa calibration RUNS --all-seeds --out FILE` "
            "writes one."
        )
    found = findings(runs, preset, calibration or out / "calibration.json")
    record = {"command": command, "findings": [one.row() for one in found]}
    write_json(out / "claims.json", record)
    text = f"{claims_summary(found)}\n\n{claims_markdown(found)}\nMade by `{command}`.\n"
    write_atomic(out / "claims.md", text.encode())
    return text


def gathered_claims(folders: Sequence[Path]) -> str:
    """Each claim as the first of some folders that measured it says, as Markdown.

    Experiments of the paper are run at the sizes that a machine can afford, in folders of their
    own; numbers of different folders never meet in one verdict.

    Raises:
        DatasetError: a folder holds no claims, or those of another version.
    """
    chosen: dict[str, tuple[Path, Finding]] = {}
    for folder in folders:
        for one in read_findings(folder):
            known = chosen.get(one.claim.id)
            if known is None or known[1].verdict == "not measured":
                chosen[one.claim.id] = folder, one
    found = [chosen[claim.id] for claim in CLAIMS if claim.id in chosen]
    lines = [
        "| claim | source | measured | difference [95 % interval] | runs | n | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for folder, one in found:
        measured, effect, verdict = _numbers(one)
        where = "" if one.verdict == "not measured" else f"{folder.name}, {one.preset}"
        sentence = f"{one.claim.sentence} (`{one.claim.id}`)"
        cells = (sentence, one.claim.source, measured, effect, where, str(one.n or ""), verdict)
        lines.append("| " + " | ".join(cells) + " |")
    return f"{claims_summary([one for _, one in found])}\n\n" + "\n".join(lines) + "\n"


def read_findings(folder: Path) -> list[Finding]:
    """What `write_claims` wrote into a folder.

    Raises:
        DatasetError: nothing, or claims of another version.
    """
    path = folder / "claims.json"
    if not path.is_file():
        raise DatasetError(
            f"{folder} has no claims.json. `safemesa paper claims --out {folder}` writes it."
        )
    known = {claim.id: claim for claim in CLAIMS}
    names = {one.name for one in fields(Finding)} - {"claim"}
    found = []
    for row in read_json(path).get("findings", ()):
        claim = known.get(row.get("id"))
        same = claim is not None and asdict(claim) | {"arms": list(claim.arms)} == {
            name: row.get(name) for name in asdict(claim)
        }
        if claim is None or not same or not names <= set(row):
            raise DatasetError(
                f"{path} holds the claim {row.get('id')!r} as another version of safemesa wrote "
                f"it. `safemesa paper claims --out {folder}` writes it anew."
            )
        found.append(Finding(claim=claim, **{name: row[name] for name in names}))
    return found


def _line(one: Finding) -> str:
    claim = one.claim
    measured, effect, verdict = _numbers(one)
    cells = (
        f"{claim.sentence} (`{claim.id}`)",
        claim.source,
        claim.domain,
        measured,
        effect,
        str(one.n or ""),
        verdict,
    )
    return "| " + " | ".join(cells) + " |"


def _numbers(one: Finding) -> tuple[str, str, str]:
    """What was measured, the effect with its interval, and the verdict."""
    verdict = one.verdict
    if one.verdict == "not measured":
        verdict += f" ({one.missing})"
    elif one.settled is not None:
        verdict += " (settled)" if one.settled else " (not settled)"
    means = ", ".join(f"{_title(arm)} {_number(value)}" for arm, value in (one.means or {}).items())
    against = f" against {_title(one.comparison)}" if one.comparison else ""
    effect = "" if one.effect is None else _number(one.effect)
    if one.low is not None and one.high is not None:
        effect += f" [{_number(one.low)}, {_number(one.high)}]"
    measured = f"{one.claim.metric}: {means}" if means else ""
    return measured, effect + against if effect else "", verdict


def _title(arm: str) -> str:
    return arm_title(arm) if arm in ARMS else arm


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
