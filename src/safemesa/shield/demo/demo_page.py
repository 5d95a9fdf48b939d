"""`safemesa demo --shield`: the ready cart with and without its shield, as a page."""

import shlex
from pathlib import Path

import numpy as np

from safemesa.core.files import write_atomic
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.pages.charts import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    Chart,
    Line,
    Panel,
    chart_svg,
    drawing,
    spans_of,
)
from safemesa.pages.markup import (
    Html,
    code,
    heading,
    key_numbers,
    page,
    paragraph,
)
from safemesa.shield.demo import SHIELD
from safemesa.shield.demo.cart import (
    DT,
    NEW,
    NEW_NAME,
    SPACES,
    STEPS,
    TEST_SEED,
    WALL,
    drive,
    log_of,
)
from safemesa.shield.demo.comparison import Both, Counts, copy_shield, counts_of, drive_both
from safemesa.shield.runtime import BlackBox, Settings, Shield

EPISODES = 100
DRAWN = 30
"""Episodes of the first picture."""
LOGGED = 20
"""Episodes of the log that is written, driven without a shield."""
RECORDED = 5
"""Episodes of the black box."""
PAGE, SHIELD_COPY, LOG, BLACK_BOX = "report.html", "shield", "log", "black_box.jsonl"


def write_demo(out: Path, command: str) -> tuple[Counts, Counts]:
    """Drives, and writes the page, the shield, a log and a black box into a folder.

    The shield and the log are left as they are where they exist. Gives the counts without and with
    the shield.

    Raises:
        OutputFolderError: `out` cannot be written.
        ModelError: the installation is damaged.
    """
    shield = Shield.load(SHIELD, force=True)
    both = drive_both(shield, NEW, TEST_SEED, EPISODES)
    counts = counts_of(both.without), counts_of(both.guarded)
    write_atomic(out / PAGE, demo_page(both, shield.settings, command, out).encode())
    if not (out / SHIELD_COPY).exists():
        copy_shield(out / SHIELD_COPY)
    if not (out / LOG).exists():
        OfflineTasks(
            domain="demo_cart",
            spaces=SPACES,
            train=(),
            test=log_of(NEW_NAME, "test", both.without[:LOGGED]),
            provenance={"source": "safemesa demo --shield", "policy": "a careless operator"},
        ).save(out / LOG)
    if not (out / BLACK_BOX).exists():
        box = BlackBox(out / BLACK_BOX)
        recording = Shield.load(out / SHIELD_COPY, mode="enforce", force=True, black_box=box)
        for number in range(RECORDED):
            drive(NEW, (TEST_SEED, number), shield=recording)
        box.close()
    return counts


def in_numbers(without: Counts, guarded: Counts) -> list[tuple[str, str]]:
    """Three numbers, and what they are."""
    return [
        (
            f"{without.violations} → {guarded.violations}",
            f"of {without.episodes} episodes hit the wall: without → with the shield",
        ),
        (
            f"{without.successes} → {guarded.successes}",
            f"of {without.episodes} episodes end parked in front of it",
        ),
        (f"{guarded.overridden_share:.0%}", "of all steps behind the shield are overridden"),
    ]


def demo_page(both: Both, settings: Settings, command: str, out: Path) -> str:
    """The page; the same episodes give the same page."""
    numbers = in_numbers(counts_of(both.without), counts_of(both.guarded))
    parts = [
        heading(1, "A cart, with a shield and without"),
        paragraph(
            "A careless operator parks a cart in front of a wall. The cart is loaded and its brake "
            "is weak, which nobody told the operator. The shield has learned from logs of six "
            "other carts and from twenty episodes of this one. It knows no equation of motion.",
            "lead",
        ),
        key_numbers(numbers),
        *_all_episodes(both),
        *_one_episode(both, settings),
        heading(2, "Go on"),
        paragraph("What would this shield have done on a log that was driven without it?"),
        code(
            shlex.join(["safemesa", *words])
            for words in (
                ["shield", "replay", str(out / LOG), "--shield", str(out / SHIELD_COPY)],
                ["shield", "check", str(out / SHIELD_COPY)],
                ["data", "report", str(out / LOG)],
            )
        ),
        heading(2, "How this was made"),
        paragraph(
            "Episodes of one number share their start, their operator and all noise. None of them "
            "is in the logs that the shield was made from. Prior, risk model and shield come with "
            "safemesa; benchmarks/demo_shield.py makes them. A simulated cart is no evidence for "
            "another robot: measure yours.",
            "soft",
        ),
        code([command]),
    ]
    return page("safemesa: a shield in ten seconds", parts)


def _all_episodes(both: Both) -> list[Html]:
    panels = []
    for name, episodes in (("without a shield", both.without), ("behind it", both.guarded)):
        lines = [
            Line(
                y=episode.obs[:, 0],
                x=np.arange(len(episode.obs)) * DT,
                name="hits the wall" if episode.violated else "does not",
                colour=RED if episode.violated else BLUE,
                opacity=0.5,
                width=1.2,
            )
            for episode in episodes[:DRAWN]
        ]
        panels.append(
            Panel(
                title=f"m to the wall, {name}",
                lines=lines,
                levels=(("violation below", WALL, RED),),
                low=0.0,
                height=170.0,
            )
        )
    chart = Chart(
        x=np.array([0.0, STEPS * DT]),
        x_title="seconds",
        panels=panels,
        description="Distance to the wall over time, without a shield and behind it",
    )
    caption = f"The first {min(DRAWN, len(both.without))} of {len(both.without)} episodes."
    return [heading(2, "Distance to the wall"), drawing(chart_svg(chart), caption)]


def _one_episode(both: Both, settings: Settings) -> list[Html]:
    """The first that the shield saves; nothing where it saves none."""
    pairs = list(zip(*both, strict=True))
    saved = [number for number, pair in enumerate(pairs) if pair[0].violated > pair[1].violated]
    if not saved:
        return []
    number, (without, guarded) = saved[0], pairs[saved[0]]
    seconds, steps = np.arange(len(guarded.obs)) * DT, np.arange(len(guarded.executed)) * DT
    alone = np.arange(len(without.obs)) * DT
    panels = [
        Panel(
            title="m to the wall",
            lines=[
                Line(y=without.obs[:, 0], x=alone, name="without a shield", colour=ORANGE),
                Line(y=guarded.obs[:, 0], name="behind it", colour=GREEN),
            ],
            levels=(("", WALL, RED),),
            low=0.0,
            height=110.0,
        ),
        Panel(
            title="speed, m/s",
            lines=[
                Line(y=without.obs[:, 1], x=alone, colour=ORANGE),
                Line(y=guarded.obs[:, 1], colour=GREEN),
            ],
        ),
        Panel(
            title="risk of what was proposed",
            lines=[Line(y=guarded.risk, x=steps, colour=BLUE)],
            levels=(("limit", settings.risk_limit, RED),),
            low=1e-4,
            high=1.0,
            logarithmic=True,
        ),
        Panel(
            title="drive, %",
            lines=[
                Line(y=guarded.proposed[:, 0], x=steps, name="proposed", colour=GREY, width=2.0),
                Line(y=guarded.executed[:, 0], x=steps, name="sent", colour=PURPLE),
            ],
        ),
    ]
    chart = Chart(
        x=seconds,
        x_title="seconds",
        panels=panels,
        spans=spans_of(steps, guarded.overridden, DT),
        span_name="overridden",
        description="One episode with and without the shield",
    )
    caption = f"Episode {number}, the first that the shield saves. Shaded: the shield acts."
    return [heading(2, "One episode"), drawing(chart_svg(chart), caption)]
