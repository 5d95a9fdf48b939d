"""What can be wrong with logs: one table of defects, and findings that say where.

The importer and `safemesa data doctor` use the same table: the importer refuses at the first
error, the doctor goes on and lists everything.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from safemesa.core.errors import DatasetError

ERROR, WARNING, NOTE = "error", "warning", "note"


@dataclass(frozen=True, kw_only=True, slots=True)
class Defect:
    """One kind of defect.

    An `error` cannot be learned from; a `warning` should be looked at; a `note` says what the map
    made of the logs.
    """

    level: str
    what: str
    advice: str


def _error(what: str, advice: str) -> Defect:
    return Defect(level=ERROR, what=what, advice=advice)


def _warning(what: str, advice: str) -> Defect:
    return Defect(level=WARNING, what=what, advice=advice)


def _note(what: str, advice: str) -> Defect:
    return Defect(level=NOTE, what=what, advice=advice)


DEFECTS: dict[str, Defect] = {
    # Files and columns.
    "unreadable-file": _error("the file cannot be read", "Restore it, or leave it out."),
    "missing-column": _error("a column is missing", "Correct the map, or log the column."),
    "empty-log": _error("there are no transitions", "Leave the file out, or log more."),
    "wrong-width": _error(
        "an array has another width than in the other files", "Log the same signals everywhere."
    ),
    "same-name": _error(
        "two robots would have the same name and be taken for one",
        'Name a task column, set task_from = "folder" or "file", or rename one.',
    ),
    "no-task": _error(
        "the path of a file does not say of which robot it is",
        "Correct task_from, or leave the file out.",
    ),
    "label-too-long": _error(
        "an identifier is longer than a name can be", "Correct the map's task or episode."
    ),
    "unused-ends": _error(
        "a column that says where episodes end is not used",
        "Map it as terminated or truncated, or declare it under ignore.",
    ),
    "unread-file": _warning(
        "files in the folder are of a kind that is not read",
        "Convert them if they are logs; else nothing.",
    ),
    "nul-tail": _warning(
        "the file ends in NUL bytes, as after a power cut",
        "Nothing, if the log may end there; the last moments are lost.",
    ),
    "cut-off": _warning(
        "the file ends amid a message, as after a power cut",
        "Nothing, if the log may end there; the last moments are lost.",
    ),
    "unused-columns": _note(
        "columns are not used", "Nothing, if that is meant; `ignore` in the map keeps it silent."
    ),
    "no-such-test": _error(
        "the task that the map or --test names as the new robot has no log",
        "Correct the name: it is that of the file, the folder or the task column.",
    ),
    "lengths-differ": _error(
        "columns differ in their number of rows", "The recording was cut off; record it again."
    ),
    "changed-file": _error(
        "the file is not the one that the manifest describes", "Restore it, or import again."
    ),
    # Rows as they are in the file.
    "ragged-row": _error(
        "a row has another number of fields than the header", "Repair or remove the row."
    ),
    "not-a-number": _error(
        "text where a number belongs (true, false and dates like 2024-05-01T12:30:00 are read too)",
        "Repair the cell.",
    ),
    "missing-value": _error(
        "a value is missing or NaN",
        'Repair the row, or declare what it means: missing = "hold", "drop" or "split".',
    ),
    "infinite-value": _error("a value is infinite", "Repair the row, or cut the episode."),
    "precision-lost": _error(
        "values that differ become equal in 32 bits, because a large offset takes their digits",
        "Subtract what is common to all rows: offset in the map.",
    ),
    "fine-steps": _warning(
        "most steps of a signal are smaller than 32 bits can tell apart",
        "Nothing, if such small changes do not matter.",
    ),
    "held-value": _warning(
        "missing cells hold the value before them, as the map says",
        "Look at it if there are many.",
    ),
    "dropped-row": _note("rows with missing cells are left out, as the map says", "Nothing."),
    "dropped-violation": _warning(
        "a row that is left out for a missing cell is a violation, which is lost",
        'Log the signal there, or declare missing = "hold" for it.',
    ),
    "number-too-large": _error(
        "a value does not fit 32 bits", "Scale the signal; such numbers are sensor faults."
    ),
    "sentinel-value": _warning(
        "one exact value far outside of all others repeats: it may stand for a missing one",
        "Check the sensor's documentation; cut such rows.",
    ),
    "stuck-signal": _warning(
        "a signal that otherwise changes in every step stands still: a frozen sensor or a lost "
        "connection",
        "Cut the episode where it freezes.",
    ),
    "repeated-row": _warning(
        "a row repeats the one before in all signals: it was logged twice",
        "Remove the repetition.",
    ),
    "constant-signal": _warning(
        "a signal never changes in this task but does in others: sensor or column lost",
        "Check the sensor, or leave the signal out of obs.",
    ),
    "unused-signal": _warning("a signal never changes in any task", "Leave it out of obs."),
    "duplicate-signal": _warning(
        "two signals are equal in every row: a column was mapped twice", "Correct the map."
    ),
    # Actions.
    "action-outside-bounds": _error(
        "an action is outside of the declared bounds",
        'Correct the unit or the bounds; or declare outside = "clip" where the robot clipped it.',
    ),
    "clipped-action": _note(
        "actions beyond their bounds are clipped, as the map says",
        "Nothing, if the robot did the same.",
    ),
    "constant-action": _warning(
        "an action never changes in this task", "Check the column; collect with varied actions."
    ),
    "action-range-unused": _warning(
        "an action uses less than 2 % of its declared range: another unit than the bounds?",
        "Correct the unit or the bounds.",
    ),
    # Cost and ends of episodes.
    "cost-not-binary": _error("a cost is neither 0 nor 1", "Declare a limit in the map instead."),
    "cost-negative": _error("a cost is negative", "A cost is 1 for a violation, else 0."),
    "flag-not-binary": _error("an end-of-episode flag is neither 0 nor 1", "Correct the column."),
    "continues-after-end": _error(
        "an episode goes on after it terminated or was truncated",
        "Give what follows a new episode number.",
    ),
    "two-ends": _warning(
        "a step is both terminated and truncated", "Decide which; terminated stops the bootstrap."
    ),
    "no-end": _warning(
        "an episode ends without being terminated or truncated", "Mark the last step truncated."
    ),
    "violation-ends-sometimes": _warning(
        "violations end some episodes and not others, so one robot's risk is counted in two ways",
        'End all episodes at a violation (after_violation = "cut" in the map), or none.',
    ),
    "after-violation": _warning(
        "rows after the first violation of their episode are left out, as the map says",
        "Nothing, if the robot stood still there; else give what follows a new episode.",
    ),
    "starts-in-violation": _warning(
        "an episode starts in a state that violates the constraint; no step caused it",
        "Start the episode later, or check the limit.",
    ),
    "no-violations": _warning(
        "a training task has no violation: risk cannot be learned from it",
        "Log closer to the limit, or check the cost.",
    ),
    "only-violations": _warning(
        "every transition of a task violates: risk cannot be told from safety",
        "Check the cost or the limit; log safe behaviour too.",
    ),
    "lost-violation": _error(
        "a state that violates is alone in its episode, so that no step leads to it",
        "Give it the episode of the rows before it, or leave it out.",
    ),
    "violation-after-gap": _warning(
        "rows are missing just before a state that violates, so that no step leads to it",
        "Nothing; this violation cannot be learned from.",
    ),
    "lone-row": _warning(
        "an episode of a single moment has no step, and is left out",
        "Check the episode numbers and the gaps around it.",
    ),
    "lost-endings": _warning(
        "episodes end without the state that their last step reached; violations there are lost",
        "Log one more state, or map the next observation.",
    ),
    # Time and order.
    "time-backwards": _error("time runs backwards within an episode", "Sort, or cut the episode."),
    "time-repeated": _error("two rows of an episode have the same time", "Remove one of them."),
    "time-gap": _error(
        "rows are missing within an episode", 'Set gaps = "split" in the map, or cut there.'
    ),
    "clock-restarted": _error(
        "the clock of a log was restarted",
        'Declare restart = "split" under [resample] of the map.',
    ),
    "late-start": _note(
        "rows before every topic has begun are left out", "Nothing, if the topic may begin so late."
    ),
    "late-message": _warning(
        "messages come after the rows that they belong to, and are left out",
        "Declare more seconds of `late` under [resample] of the map.",
    ),
    "lost-messages": _warning(
        "the logger says that it lost messages", "Nothing; log fewer topics, or to a faster disk."
    ),
    "uneven-time": _warning(
        "rows come much closer than dt", "Resample the log to a constant rate."
    ),
    "wrong-dt": _error("rows are not the declared dt apart", "Correct dt or the time scale."),
    "step-jump": _error("step numbers do not follow each other", "Begin a new episode there."),
    "episode-in-pieces": _error(
        "an episode number returns after another episode of the same task",
        "Sort the rows by episode, then by time.",
    ),
    "episode-too-long": _warning(
        "an episode is longer than the declared horizon: a reset was missed, or the horizon is "
        "wrong",
        "Correct the horizon or the episode numbers.",
    ),
    "state-jump": _warning(
        "the state jumps as in no other step: a reset within an episode, or lost rows",
        "Begin a new episode there.",
    ),
    "next-obs-mismatch": _warning(
        "the next observation is not the following row's observation",
        "Check whether columns are shifted by a row, or an episode crosses a reset.",
    ),
    # Between episodes and tasks.
    "duplicate-episode": _warning("an episode occurs twice", "Remove one of them."),
    "leaked-episode": _warning(
        "an episode of the test log is also in a training log: evaluation would be too good",
        "Remove it from one of them.",
    ),
    "too-few-episodes": _error(
        "a training task has fewer than two episodes, but support and query sets need one each",
        "Cut the log into episodes.",
    ),
    "other-unit": _warning(
        "a signal is more than 20 times larger or smaller than in the other tasks: another unit?",
        "Convert that robot's log to the unit of the others.",
    ),
    "swapped-columns": _warning(
        "two signals look like each other's in the other tasks: columns are swapped",
        "Correct the order for this robot.",
    ),
    "mirrored-signal": _warning(
        "a signal lies on the other side of zero than in all other tasks: a sign is reversed",
        "Correct the sign in that robot's log, if it is so.",
    ),
}
"""Every kind of defect that is looked for, by its name."""


class LogError(DatasetError):
    """A file that cannot be read on; `code` is the kind of defect."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A defect and where it is: file, task, episode, row and column, as far as they exist.

    `row` counts as the file does: lines of a CSV file (the header is line 1), else rows from 0.
    `count` says how often it was found in that file and column; the place is the first one's.
    """

    code: str
    file: str = ""
    task: str = ""
    episode: str = ""
    row: int | None = None
    column: str = ""
    count: int = 1
    detail: str = ""

    @property
    def defect(self) -> Defect:
        """The entry of the table."""
        return DEFECTS[self.code]

    def place(self) -> str:
        """Where, in words."""
        parts = [
            self.file,
            f"task {self.task!r}" if self.task else "",
            f"episode {self.episode}" if self.episode else "",
            f"row {self.row}" if self.row is not None else "",
            f"column {self.column!r}" if self.column else "",
        ]
        return ", ".join(part for part in parts if part)

    def sentence(self) -> str:
        """All of it in one line."""
        detail = f" ({self.detail})" if self.detail else ""
        times = f" [{self.count} times]" if self.count > 1 else ""
        defect = self.defect
        return f"{self.code}: {self.place()}: {defect.what}{detail}.{times} {defect.advice}"


class Findings:
    """Collects findings; those of one kind in one file, task and column count as one."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str, str], Finding] = {}

    def add(self, finding: Finding) -> None:
        """Keeps the place of the first and counts the rest."""
        key = (finding.code, finding.file, finding.task, finding.column)
        known = self._found.get(key)
        self._found[key] = (
            finding if known is None else replace(known, count=known.count + finding.count)
        )

    def __iter__(self) -> Iterator[Finding]:
        """Errors first, then warnings, then notes; within these in the order of the table."""
        order = {code: index for index, code in enumerate(DEFECTS)}
        levels = (ERROR, WARNING, NOTE)
        return iter(
            sorted(
                self._found.values(),
                key=lambda one: (
                    levels.index(one.defect.level),
                    order[one.code],
                    one.file,
                    one.task,
                ),
            )
        )

    def __len__(self) -> int:
        """Number of distinct findings."""
        return len(self._found)

    def errors(self) -> list[Finding]:
        """Those that cannot be learned from."""
        return [one for one in self if one.defect.level == ERROR]


def by_kind(findings: Findings) -> list[list[Finding]]:
    """Findings of one kind side by side, in their order."""
    kinds: dict[str, list[Finding]] = {}
    for one in findings:
        kinds.setdefault(one.code, []).append(one)
    return list(kinds.values())
