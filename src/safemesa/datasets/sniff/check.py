"""What the doctor says of a proposed map, with the first candidate for each question."""

import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from safemesa.core.errors import SafemesaError
from safemesa.datasets.doctor.examine import examine
from safemesa.datasets.findings import Findings
from safemesa.datasets.importers.find import find_sources
from safemesa.datasets.importers.import_map import ImportMap, map_from_record
from safemesa.datasets.importers.stream import total_bytes
from safemesa.datasets.sniff.propose import Proposal

MOST_BYTES = 16 * 2**20
"""More is not examined, so that an answer comes in seconds; `data doctor` reads all."""
EXCERPT = 8 * 2**20
"""Bytes of a CSV file that is larger than that."""
TABLES = (".csv", ".tsv")
OF_VIOLATIONS = ("no-violations", "only-violations")
OF_A_PART = ("no-such-test", "empty-log", "unread-file")
"""Findings that a part of the files cannot have right."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The doctor's findings, and in a sentence what they are of."""

    heading: str
    findings: Findings | None = None
    """None: nothing could be examined."""


def check(paths: Sequence[Path], proposal: Proposal) -> Checked:
    """Examines the logs, or as much of them as takes seconds."""
    if proposal.answered is None:
        return Checked(heading="The doctor has no table yet: see the questions.")
    sources = find_sources(paths)
    chosen: list[Path] = []
    for path in sorted(sources, key=lambda path: total_bytes([path])):
        if total_bytes([*chosen, path]) > MOST_BYTES:
            break
        chosen.append(path)
    with tempfile.TemporaryDirectory(prefix="safemesa-sniff-") as scratch:
        cut: dict[str, str] = {}
        if not chosen and sources[0].suffix.lower() in TABLES:
            chosen = [_excerpt(sources[0], Path(scratch))]
            cut[str(chosen[0])] = str(sources[0])
        if not chosen:
            return Checked(
                heading="The files are large: `data doctor` reads them, and takes longer."
            )
        order = {path: number for number, path in enumerate(sources)}
        chosen.sort(key=lambda path: order.get(path, 0))
        try:
            mapping = map_from_record(tomllib.loads(proposal.answered))
            part = len(chosen) < len(sources) or bool(cut)
            examined = examine(chosen, _of_part(mapping) if part else mapping)
        except SafemesaError as error:
            return Checked(heading=f"The doctor cannot use the map: {error}")
    hidden = (*(() if proposal.knows_violations else OF_VIOLATIONS), *(OF_A_PART if part else ()))
    findings = Findings()
    for finding in examined.findings:
        if finding.code not in hidden:
            findings.add(replace(finding, file=cut.get(finding.file, finding.file)))
    return Checked(
        heading=_heading(len(chosen), len(sources), bool(cut), proposal), findings=findings
    )


def _of_part(mapping: ImportMap) -> ImportMap:
    """The new robot's log may lie elsewhere."""
    return replace(mapping, test=None)


def _excerpt(path: Path, scratch: Path) -> Path:
    """The beginning of a table, in whole lines, under its own name."""
    copy = scratch / (path.absolute().parent.name or "logs") / path.name
    copy.parent.mkdir()
    with open(path, "rb") as file:
        copy.write_bytes(file.read(EXCERPT).rpartition(b"\n")[0] + b"\n")
    return copy


def _heading(chosen: int, total: int, is_cut: bool, proposal: Proposal) -> str:
    if is_cut:
        looked = f"of the first {EXCERPT // 2**20} MiB of a file"
    elif chosen < total:
        looked = f"of {chosen} of {total} files"
    else:
        looked = "of all rows"
    answers = ", with the first candidate for each question" if proposal.questions else ""
    without = "" if proposal.knows_violations else "; what a violation is, it does not know yet"
    return f"The doctor's table {looked}{answers}{without}:"
