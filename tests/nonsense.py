"""All options of all verbs, and what can mean nothing for them: what the tests of options share."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from safemesa.cli.main import main

VERBS: dict[str, list[str]] = {
    "demo": ["--out", "new"],
    "run": ["rrl", "navigation2", "--preset", "quick", "--out", "new"],
    "collect": ["navigation2", "--preset", "quick", "--out", "new"],
    "meta-train": ["data", "--preset", "quick", "--out", "new"],
    "adapt": ["prior", "data", "--out", "new"],
    "deploy": ["risk_model", "navigation2", "--out", "new"],
    "calibration": ["runs"],
    "headroom": ["navigation2", "--preset", "quick", "--out", "new"],
    "skill": ["risk_model", "--domain", "navigation2"],
    "grid": ["--preset", "quick", "--out", "new"],
    "report": ["runs", "--out", "new"],
    "pack": ["runs", "--out", "new"],
    "power": ["runs"],
    "paper figure4": ["--preset", "quick", "--out", "new"],
    "paper table": [],
    "paper claims": ["--out", "runs"],
    "paper verdicts": ["claims"],
    "evaluate": ["prior", "data"],
    "data import": ["logs", "--map", "map.json", "--out", "new"],
    "data export": ["data", "--out", "new"],
    "data info": ["data"],
    "data doctor": ["data"],
    "shield export": ["risk_model", "--out", "new"],
    "shield check": ["shield"],
    "shield seal": ["shield"],
    "shield bench": ["shield", "--ticks", "3"],
}
"""What is given to a verb of two words or one, so that it would begin its work."""

SECTION = re.compile(
    r"--(data|sampling|risk|target|recovery|rehearsal|guard-settings|meta|adapt|sac|deploy|carl)\."
)

LONG = "x" * 10_000
UNICODE = "ä\u2603\U0001f916"
HUGE = "9" * 40
WRONG = {
    "INT": ["", " ", "-3", HUGE, "nan", "1.5", UNICODE, LONG],
    "FLOAT": ["", "nan", "inf", "-inf", "-3", "1e999", UNICODE, LONG],
    "STR": ["", "  ", UNICODE, LONG],
    "PATH": ["", " ", "n" * 300, "file.txt/below", LONG],
    "FILE": ["folder"],
    "FOLDER": ["file.txt"],
    "CHOICE": ["", UNICODE, "none of these", LONG],
}
"""By kind of option; each is refused whatever the option."""


ODD = ("0", "None", "1e-300", "1e309", "5-1", "0-99999999999", "999999999", "a:b", "--", "=")
"""Nonsense for many options and not for all: refused, or taken; never a traceback."""


@dataclass(frozen=True)
class Option:
    """A flag, or the place of what is given without one."""

    verb: str
    name: str
    kind: str
    place: int | None = None

    def words(self, value: str) -> list[str]:
        """A command line in which it has this value."""
        base = list(VERBS[self.verb])
        if self.place is not None:
            base[self.place] = value
        elif self.name in base:
            base[base.index(self.name) + 1] = value
        else:
            base += [f"{self.name}={value}"]
        return [*self.verb.split(), *base]


def options(verb: str, capsys: pytest.CaptureFixture[str]) -> list[Option]:
    """The flags that `--help` of a verb lists, and its words without a flag."""
    base = VERBS[verb]
    with pytest.raises(SystemExit):
        main([*verb.split(), *base, "--help"])
    text = capsys.readouterr().out
    found = {
        name: Option(verb, name, _kind(metavar))
        for name, metavar in re.findall(r"│ (--[a-z0-9.-]+) (\[?[^\s│]+)", text)
        if not metavar.startswith(("--", "(", ","))
    }
    words = [
        Option(verb, f"word {place + 1}", "PATH", place)
        for place, word in enumerate(base)
        if not word.startswith("--") and (place == 0 or not base[place - 1].startswith("--"))
    ]
    return [*found.values(), *words]


def _kind(metavar: str) -> str:
    for kind in ("INT", "FLOAT", "PATH", "STR"):
        if kind in metavar:
            return kind
    return "CHOICE"


def wrong_values(option: Option) -> Iterator[str]:
    """What is nonsense for an option."""
    for value in WRONG[option.kind]:
        if not means_something(option, value):
            yield value


MEANINGFUL = {
    # Names of things of the user's.
    ("grid", "--slurm.partition"): (UNICODE,),
    ("grid", "--slurm.setup"): (UNICODE,),
    # A place or direction in units of the robot.
    ("shield export", "--safe-action"): (),
}


def means_something(option: Option, value: str) -> bool:
    """Whether a value that is nonsense for most options is none for this."""
    if option.name.endswith(".target-entropy") and value == "-3":
        return True
    return value in MEANINGFUL.get((option.verb, option.name), ())


def workplace(root: Path) -> None:
    """What the command lines of `VERBS` name, made without training."""
    import json

    import logs
    from shields import make_shield_folder
    from tiny import tiny_config

    from safemesa.domains.registry import domain
    from safemesa.phases.storage.artefacts import prior_template, save_artefact

    fleet = logs.cart_fleet(tasks=3, episodes=8)
    fleet.save(root / "data")
    logs.write_csv(root / "logs" / "one.csv", logs.table(fleet.train[0]))
    logs.write_map(root / "map.json")
    config = tiny_config("mesa")
    prior = _ones(lambda: prior_template(config, logs.SPACES))
    save_artefact(root / "prior", prior, config, logs.SPACES, {"units": {}})
    spaces = domain("navigation2").spaces
    model = _ones(lambda: prior_template(config, spaces)).model
    save_artefact(root / "risk_model", model, config, spaces, {})
    make_shield_folder(root / "shield")
    (root / "file.txt").write_text("a user's")
    (root / "folder").mkdir()
    (root / "claims").mkdir()
    (root / "claims" / "claims.json").write_text(json.dumps({"command": "", "findings": []}))
    for arm, violations in (("mesa", 3), ("multitask", 5)):
        for seed in range(3):
            folder = root / "runs" / f"{arm}-{seed}"
            _made_up_run(folder, arm, seed, violations + seed)
            # That it is there is looked at first.
            save_artefact(folder / "artefacts" / "prior", prior, config, logs.SPACES, {})


def _ones(build: Callable[[], Any]) -> Any:
    """What `build` would make, of ones and without compiling anything: no scale may be 0."""
    import jax
    import numpy as np

    shapes = jax.eval_shape(build)
    return jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)


def _made_up_run(folder: Path, arm: str, seed: int, violations: int) -> None:
    from dataclasses import replace

    from tiny import tiny_config

    from safemesa.core.files import write_json
    from safemesa.phases.config import config_to_json
    from safemesa.phases.storage.run_folder import METRIC_FIELDS, RunFolder

    config = replace(tiny_config(arm), seed=seed)
    run = RunFolder(folder)
    write_json(run.config_file, {"config": config_to_json(config), "command": ""})
    lines = []
    for number in range(10):
        line = dict.fromkeys(METRIC_FIELDS, 0) | {"episode": number, "length": 5, "success": 1}
        line |= {"env_steps": 5 * (number + 1), "violation": int(number < violations)}
        lines.append(line | {"cumulative_violations": min(number + 1, violations)})
    run.metrics.append(lines)
    summary = {"episodes": 10, "env_steps": 50, "violations": violations, "successes": 10}
    summary |= {"violations_under_recovery": 0, "interventions": 0}
    summary |= {"return_mean": 0.0, "return_last_100": 0.0}
    wall = dict.fromkeys(("collect", "meta_train", "adapt", "deploy"), 1.0)
    write_json(run.summary_file, summary | {"wall_s": wall})
