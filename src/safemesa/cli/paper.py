"""`safemesa paper`: the paper's figures, tables and claims."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safemesa.cli.arguments import command_line, parse
from safemesa.core.errors import ConfigurationError

PARTS = {"claims": "each claim of the paper, with the measured effect and a verdict"}


@dataclass(frozen=True, kw_only=True)
class ClaimsFlags:
    """Prints each claim of the paper with what finished runs say about it."""

    out: Path
    """Folder of the runs; claims.json and claims.md are written there."""
    preset: str = "paper"
    """Which runs: presets are never mixed."""
    calibration: Path | None = None
    """A file of `safemesa calibration`; default: calibration.json in the folder."""


def main(verb: str, arguments: Sequence[str]) -> None:
    """Dispatches."""
    parts = {"claims": claims}
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, PARTS))
        print("usage: safemesa paper PART ...\n")
        print("\n".join(f"  {name:<{width}}  {text}" for name, text in PARTS.items()))
        return
    if arguments[0] not in parts:
        raise ConfigurationError(
            f"`safemesa paper` got {arguments[0]!r}; expected one of {', '.join(parts)}."
        )
    parts[arguments[0]](verb, arguments)


def claims(verb: str, arguments: Sequence[str]) -> None:
    """Exits 0 whatever the verdicts."""
    flags = parse(ClaimsFlags, f"{verb} claims", arguments[1:])
    from safemesa.core.files import write_atomic, write_json
    from safemesa.experiments.paper.claims_table import claims_markdown, claims_summary
    from safemesa.experiments.paper.verdicts import findings
    from safemesa.experiments.run_records import find_runs

    calibration = flags.calibration or flags.out / "calibration.json"
    found = findings(find_runs([flags.out]), flags.preset, calibration)
    command = command_line(verb, arguments)
    table = claims_markdown(found)
    record = {"command": command, "findings": [one.row() for one in found]}
    write_json(flags.out / "claims.json", record)
    text = f"{claims_summary(found)}\n\n{table}\nMade by `{command}`.\n"
    write_atomic(flags.out / "claims.md", text.encode())
    print(table)
    print(claims_summary(found))
    print(f"Written: {flags.out / 'claims.md'}, {flags.out / 'claims.json'}", file=sys.stderr)
