"""The power analysis as text."""

from collections.abc import Sequence

from safemesa.experiments.report.result_tables import (
    ABSENT,
    Cell,
    Table,
    format_number,
    markdown_table,
)
from safemesa.experiments.report.seed_power import MOST_PAIRS, POWER, SPREAD_LEVEL, PowerRow
from safemesa.experiments.statistics.across_seeds import MINIMUM_FOR_VERDICT


def power_as_table(rows: Sequence[PowerRow]) -> Table:
    """One line per domain, preset and arm."""
    return Table(
        header=(
            "Domain",
            "Difference",
            "Pairs",
            "Mean",
            "Gap to find",
            "Spread",
            "Power now",
            "Pairs needed",
        ),
        rows=tuple(
            (
                Cell(f"{row.pair.domain}, {row.pair.preset}"),
                Cell(f"{row.pair.title} - {row.pair.baseline}"),
                Cell(str(row.pair.difference.n)),
                Cell(
                    format_number(row.pair.difference.mean),
                    (f"p = {row.pair.difference.p_value:.2g}", f"Holm {row.adjusted_p:.2g}"),
                ),
                Cell(format_number(row.gap), (f"of {format_number(row.baseline_mean)}",)),
                Cell(ABSENT if row.spread is None else format_number(row.spread)),
                Cell(ABSENT if row.power is None else f"{row.power:.2f}"),
                _needed(row),
            )
            for row in rows
        ),
    )


def _needed(row: PowerRow) -> Cell:
    if row.power is None:
        return Cell(ABSENT)
    needed, fewest, most = (
        f"more than {MOST_PAIRS}" if one is None else str(one)
        for one in (row.needed, row.fewest, row.most)
    )
    return Cell(needed, (f"{fewest} to {most}",))


def power_text(rows: Sequence[PowerRow], gap: float) -> str:
    """The table and how it is read."""
    names = dict.fromkeys(row.pair.baseline for row in rows)
    metrics = dict.fromkeys(row.pair.metric for row in rows)
    reading = (
        f"Pairs needed: to find a gap of {100 * gap:g} % of {' and '.join(names)}'s "
        f"{' and '.join(metrics)} with probability {POWER:g} (two-sided paired t-test at 5 %, "
        f"normal differences), and no fewer than {MINIMUM_FOR_VERDICT}, below which the sign-flip "
        "test of the tables finds nothing. "
        f"The range is a {100 * SPREAD_LEVEL:.0f} % interval: the spread of "
        "the differences is itself known from these pairs alone. p is of the difference found, by "
        "the sign-flip test; after Holm, corrected for all rows."
    )
    return f"{markdown_table(power_as_table(rows))}\n\n{reading}"
