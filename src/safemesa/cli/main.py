"""`safemesa`: one verb per phase, and verbs for whole runs. `--help` imports no JAX."""

import contextlib
import errno
import importlib
import os
import select
import shlex
import sys
from collections.abc import Sequence

from safemesa.core.errors import ConfigurationError, SafemesaError

VERBS: dict[str, tuple[str, str]] = {
    "demo": ("demo", "all three phases of five arms on Navigation 2, with a report"),
    "run": ("run_arm", "ARM DOMAIN: one arm, all phases"),
    "collect": ("phases", "DOMAIN: logs of the training tasks and of the new robot"),
    "meta-train": ("phases", "DATA: Phase 1, a prior from the training logs"),
    "adapt": ("phases", "PRIOR LOG: Phase 2, a risk model of the new robot"),
    "deploy": ("phases", "RISK DOMAIN: Phase 3, learning a task behind the guard"),
    "calibration": ("calibration", "RUNS: is the adapted risk a probability? A table"),
    "headroom": ("headroom", "DOMAIN ...: is there room for adapting the critic? Tables"),
    "skill": ("skill", "RUN ...: does the recovery recover, and when must it take over? Tables"),
    "grid": ("grid", "arms x domains x seeds, in as many processes as you like"),
    "report": ("report", "RUNS: one HTML file with curves, maps, tables"),
    "pack": ("pack", "RUNS --out FOLDER: many run folders in two files, which verbs read as well"),
    "power": ("power", "RUNS: how many paired seeds a difference takes to be found"),
    "paper": ("paper", "figure2 ... figure6b|table|claims|all: the paper, reproduced"),
    "evaluate": ("evaluate", "PRIOR LOG: does it warn in time, on logs that it was not fitted to?"),
    "data": (
        "data",
        "sniff|import|doctor|report|export|info: your logs, from files to datasets",
    ),
    "shield": (
        "shield",
        "export RUN | check DIR | bench DIR | replay LOG: the risk model on a robot",
    ),
    "doctor": ("doctor", "is this installation sound?"),
}
"""Verb to (module of this package, one line of help)."""

RESUMED = ("demo", "run", "collect", "meta-train", "deploy", "headroom", "grid", "paper")
"""Verbs that go on where they were interrupted; others save nothing before they are done."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""A full disk, wherever it is noticed."""

OF_THE_PLACE = (
    *NO_ROOM,
    errno.EROFS,
    errno.EIO,
    errno.ENAMETOOLONG,
    errno.EACCES,
    errno.EPERM,
    errno.ELOOP,
    errno.ENOTDIR,
    errno.EISDIR,
)
"""What goes wrong with files and disks, and is no defect of ours."""

LONGEST_WORD = 4096
"""Characters; longer names are none that a system has."""

INTERRUPTED = 130
USER_ERROR = 2
READER_LEFT = 141
"""What a shell reports of a program that SIGPIPE ended."""


def usage() -> str:
    """The text of `safemesa --help`."""
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {text}" for verb, (_, text) in VERBS.items()]
    return "\n".join(
        [
            "usage: safemesa VERB ...   (safemesa VERB --help for its flags)",
            "",
            "Learn risk from many robots' accidents, adapt it to a new robot, keep that one safe.",
            "",
            *lines,
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        try:
            return _run(given)
        finally:
            sys.stdout.flush()
    except SafemesaError as error:
        print(f"safemesa: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        goes_on = bool(given) and given[0] in RESUMED
        advice = "What is done is saved; go on with" if goes_on else "To begin again"
        command = shlex.join(["safemesa", *given])
        print(f"\nInterrupted. {advice}:\n  {command}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        if not _reader_left():
            raise
        _leave_standard_output()
        return READER_LEFT
    except OSError as error:
        if error.errno not in OF_THE_PLACE:
            raise
        print(f"safemesa: {_about_place(error)}", file=sys.stderr)
        _leave_standard_output()
        return USER_ERROR


def check_words(given: Sequence[str]) -> None:
    """Refuses words that can mean nothing, whatever they are given for.

    Raises:
        ConfigurationError: a word is blank, no text, or too long for a name or a number.
    """
    for number, word in enumerate(given, start=1):
        flag, equals, value = word.partition("=")
        value = value if word.startswith("--") and equals else word
        before = flag if value is not word else given[number - 2] if number > 1 else ""
        place = f"argument {number}" + (f", after {before}," if before.startswith("--") else "")
        if not value.strip():
            raise ConfigurationError(
                f"{place} is empty; expected a value. Is a shell variable not set?"
            )
        try:
            word.encode()
        except UnicodeEncodeError:
            raise ConfigurationError(
                f"{place} is {ascii(word)[:80]}, which is no text in UTF-8. Rename the file."
            ) from None
        if "\0" in word or len(word) > LONGEST_WORD:
            raise ConfigurationError(
                f"{place} begins with {word[:40]!r} and has {len(word)} characters; expected at "
                f"most {LONGEST_WORD}, none of them of the code 0."
            )


def _about_place(error: OSError) -> str:
    where = f"{str(error.filename)[:200]}: " if error.filename else ""
    if error.errno in NO_ROOM:
        return f"cannot write: {where}{error.strerror}. Make room, and give the command again."
    return f"{where}{error.strerror}. Check the path and your rights, or give another one."


def _leave_standard_output() -> None:
    """What cannot be written must not raise once more when the interpreter ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(given: Sequence[str]) -> int:
    if not given or given[0] in ("-h", "--help"):
        print(usage())
        return 0
    if given[0] == "--version":
        from safemesa._version import __version__

        print(f"safemesa {__version__}")
        return 0
    check_words(given)
    verb = given[0]
    if verb not in VERBS:
        print(f"safemesa: unknown verb {verb!r}.\n\n{usage()}", file=sys.stderr)
        return USER_ERROR
    module = importlib.import_module(f"safemesa.cli.{VERBS[verb][0]}")
    module.main(verb, given[1:])
    return 0


def _reader_left() -> bool:
    """Whether who read our output, such as `head`, is gone; other pipes than that break too."""
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return bool(poll.poll(0))
