"""The verdicts as Markdown and as JSON."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from safemesa.core.files import write_atomic, write_json
from safemesa.experiments.arms import ARMS
from safemesa.experiments.paper.verdicts import Finding, findings
from safemesa.experiments.result_rows import arm_title
from safemesa.experiments.run_records import find_runs


def claims_markdown(found: Sequence[Finding]) -> str:
    """One row per claim."""
    lines = [
        "| claim | source | domain | measured | difference [95 % interval] | n | verdict |",
        "|---|---|---|---|---|---|---|",
        *(_line(one) for one in found),
    ]
    return "\n".join(lines) + "\n"


def claims_summary(found: Sequence[Finding]) -> str:
    """How many hold, in a sentence."""
    counts = Counter(one.verdict for one in found)
    settled = sum(1 for one in found if one.resolved)
    return (
        f"{len(found)} claims: {counts['holds']} hold, {counts['does not hold']} do not, "
        f"{counts['not measured']} are not measured. The intervals settle {settled}."
    )


def write_claims(out: Path, preset: str, calibration: Path | None, command: str) -> str:
    """Holds all claims against the runs below `out`; writes claims.md and claims.json there.

    Returns the Markdown.

    Raises:
        DatasetError: there is no finished run.
    """
    found = findings(find_runs([out]), preset, calibration or out / "calibration.json")
    record = {"command": command, "findings": [one.row() for one in found]}
    write_json(out / "claims.json", record)
    text = f"{claims_summary(found)}\n\n{claims_markdown(found)}\nMade by `{command}`.\n"
    write_atomic(out / "claims.md", text.encode())
    return text


def _line(one: Finding) -> str:
    claim = one.claim
    verdict = one.verdict
    if one.verdict == "not measured":
        verdict += f" ({one.missing})"
    elif not one.resolved:
        verdict += " (not settled by the interval)" if one.resolved is False else " (no interval)"
    means = ", ".join(f"{_title(arm)} {_number(value)}" for arm, value in (one.means or {}).items())
    against = f" against {_title(one.comparison)}" if one.comparison else ""
    effect = "" if one.effect is None else _number(one.effect)
    if one.low is not None and one.high is not None:
        effect += f" [{_number(one.low)}, {_number(one.high)}]"
    cells = (
        f"{claim.sentence} (`{claim.id}`)",
        claim.source,
        claim.domain,
        f"{claim.metric}: {means}" if means else "",
        effect + against if effect else "",
        str(one.n or ""),
        verdict,
    )
    return "| " + " | ".join(cells) + " |"


def _title(arm: str) -> str:
    return arm_title(arm) if arm in ARMS else arm


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
