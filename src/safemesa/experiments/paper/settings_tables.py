"""Tables 1 to 5 of the paper beside the settings in use. Free of JAX."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from safemesa.experiments.arms import configure
from safemesa.phases.config import RunConfig

Read = Callable[[RunConfig], Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One number of a table.

    Attributes:
        table: Which table of the paper prints it.
        name: What it is called there.
        arm: Whose it is.
        domain: Where it holds.
        paper: The printed value.
        read: The same of a configuration.
        why: Why ours differs, where it does.
    """

    table: int
    name: str
    arm: str
    domain: str
    paper: float | int
    read: Read
    why: str = ""


RATES = "the printed rates hardly adapt (docs/fidelity.md); the arm mesa_as_printed has them"
EQUAL = "equal in every arm (docs/fidelity.md)"

_PHASE_1: tuple[tuple[str, float, Read, str], ...] = (
    ("iterations of Phase 1", 10_000, lambda c: c.meta.iterations, ""),
    ("inner batch size", 256, lambda c: c.meta.support_batch, ""),
    ("outer batch size", 256, lambda c: c.meta.query_batch, ""),
    ("inner adaptation steps", 1, lambda c: c.meta.inner_steps, ""),
    ("inner rate alpha_1", 1e-3, lambda c: c.meta.inner_rate, RATES),
    ("outer rate alpha_2", 1e-5, lambda c: c.meta.outer_rate, RATES),
    ("task batch size K", 5, lambda c: c.meta.tasks, ""),
)

_PHASES_2_AND_3: tuple[tuple[str, float, Read, str], ...] = (
    ("Adam rate of Phases 2 and 3, MESA", 1e-3, lambda c: c.adapt.learning_rate, EQUAL),
    ("batch size of Phase 3", 256, lambda c: c.sac.batch, ""),
    ("discount of the task", 0.99, lambda c: c.sac.discount, ""),
)


def _table_1() -> tuple[Setting, ...]:
    mesa = [
        Setting(table=1, name=name, arm="mesa", domain="cartpole", paper=value, read=read, why=why)
        for name, value, read, why in (*_PHASE_1, *_PHASES_2_AND_3)
    ]
    others = (
        ("multitask", "iterations of Phase 1", 10_000, lambda c: c.meta.iterations),
        ("multitask", "batch size of Phase 1", 256, lambda c: c.meta.query_batch),
        ("multitask", "Adam rate of Phase 1", 3e-4, lambda c: c.meta.outer_rate),
        ("multitask", "steps of Phase 2", 500, lambda c: c.adapt.steps),
        ("mesa", "steps of Phase 2", 500, lambda c: c.adapt.steps),
        ("rrl", "steps of Phase 2", 10_000, lambda c: c.adapt.scratch_steps),
        ("rrl", "batch size of Phase 2", 256, lambda c: c.adapt.batch),
        ("rrl", "Adam rate of Phase 2", 3e-4, lambda c: c.adapt.learning_rate),
        ("unconstrained", "Adam rate of Phase 3", 3e-4, lambda c: c.sac.learning_rate),
        ("mesa", "gamma_risk", 0.8, lambda c: c.risk.gamma_risk),
        ("mesa", "risk limit", 0.1, lambda c: c.risk_limit),
    )
    return (
        *mesa,
        *(
            Setting(table=1, name=name, arm=arm, domain="cartpole", paper=value, read=read)
            for arm, name, value, read in others
        ),
    )


def _differences() -> tuple[Setting, ...]:
    """Tables 2 to 4."""
    rows: tuple[tuple[int, str, str, str, float, Read], ...] = (
        *(
            row
            for domain in ("navigation1", "navigation2")
            for row in (
                (2, "steps of Phase 2", "rrl", domain, 2_000, lambda c: c.adapt.scratch_steps),
                (2, "steps of Phase 2", "mesa", domain, 100, lambda c: c.adapt.steps),
                (2, "batch size of Phase 2", "mesa", domain, 64, lambda c: c.adapt.batch),
            )
        ),
        (2, "gamma_risk", "mesa", "navigation2", 0.65, lambda c: c.risk.gamma_risk),
        (2, "risk limit", "mesa", "navigation1", 0.3, lambda c: c.risk_limit),
        (3, "iterations of Phase 1", "mesa", "halfcheetah", 15_000, lambda c: c.meta.iterations),
        (4, "iterations of Phase 1", "mesa", "ant", 15_000, lambda c: c.meta.iterations),
        (4, "risk limit", "mesa", "ant", 0.3, lambda c: c.risk_limit),
    )
    return tuple(
        Setting(table=table, name=name, arm=arm, domain=domain, paper=value, read=read)
        for table, name, arm, domain, value, read in rows
    )


def _table_5() -> tuple[Setting, ...]:
    sizes = {"cartpole": (20, 20_000, 1_000), "halfcheetah": (4, 400_000, 40_000)}
    sizes |= {"ant": (3, 400_000, 40_000)}
    parts: tuple[tuple[str, Read], ...] = (
        ("training logs", lambda c: c.data.train_tasks),
        ("transitions of each", lambda c: c.data.train_transitions),
        ("transitions of the test log", lambda c: c.data.test_transitions),
    )
    return tuple(
        Setting(table=5, name=name, arm="mesa", domain=domain, paper=value, read=read)
        for domain, numbers in sizes.items()
        for (name, read), value in zip(parts, numbers, strict=True)
    )


SETTINGS: tuple[Setting, ...] = (*_table_1(), *_differences(), *_table_5())


def tables_markdown(preset: str = "paper") -> str:
    """All settings: the printed value, the one in use, and why they differ where they do."""
    lines = [
        f"| table | setting | arm | domain | paper | `{preset}` | |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in SETTINGS:
        ours = one.read(configure(one.arm, one.domain, preset))
        note = "" if ours == one.paper else (one.why or f"the size of `{preset}`")
        cells = (one.table, one.name, one.arm, one.domain, f"{one.paper:g}", f"{ours:g}", note)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"
