"""`safemesa skill RUN ...`: does a run's recovery recover, and does its critic say when to?"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from safemesa.cli.arguments import Positional, command_line, parse, prepare_jax
from safemesa.core.outputs import check_output


@dataclass(frozen=True, kw_only=True)
class SkillFlags:
    """Lets each recovery drive its test robot alone, and tries when it must take over."""

    runs: Annotated[Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN ...")]
    """Run folders, finished or not, folders that contain some, or, with --domain, folders that
    `safemesa adapt` or `meta-train` wrote."""
    out: Path | None = None
    """JSON file for all numbers; printed only where not given."""
    starts: int = 60
    """States of either kind to start from."""
    horizon: int = 100
    """Steps for which no violation may come."""
    before: int = 8
    """Steps before a logged violation at which the second kind of start lies."""
    labels: int = 200
    """States of Phase 3 of which it is found out whether recovery still saves them; 0: none."""
    states: Literal["random", "replay"] = "random"
    """Where starts come from: a log of the random policy, the same for all arms of a seed, or the
    run's own replay, where it holds enough."""
    candidates: int = 0
    """Also let the critic drive: the action of least risk of so many."""
    domain: str | None = None
    """The simulator of the robot, for folders that `safemesa adapt` wrote."""
    seed: int | None = None
    """Of the test robot, the starts and all draws; default: each run's own."""


def main(verb: str, arguments: Sequence[str]) -> None:
    """Prints two tables, and writes the numbers."""
    flags = parse(SkillFlags, verb, arguments)
    check_output(flags.out)
    prepare_jax()
    from safemesa.core.files import write_json
    from safemesa.experiments.recovery_skill.measure_skill import measure_skill
    from safemesa.experiments.recovery_skill.skill_starts import SkillSettings
    from safemesa.experiments.recovery_skill.skill_tables import skill_json, skill_markdown
    from safemesa.experiments.recovery_skill.subjects import find_subjects
    from safemesa.phases.progress import BarProgress

    settings = SkillSettings(
        starts=flags.starts,
        horizon=flags.horizon,
        before=flags.before,
        labels=flags.labels,
        states=flags.states,
        candidates=flags.candidates,
    )
    subjects = find_subjects(flags.runs, flags.domain, flags.seed)
    reports = measure_skill(subjects, settings, BarProgress())
    print(skill_markdown(reports, settings))
    if flags.out is not None:
        record = {"command": command_line(verb, arguments), "settings": asdict(settings)}
        write_json(flags.out, {**record, "runs": [skill_json(report) for report in reports]})
        print(f"\nAll numbers: {flags.out}")
