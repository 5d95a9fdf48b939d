"""Import of CSV beside what reading it takes at least: pyarrow's reader, which only reads."""

import atexit
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from safemesa.datasets.importers.import_map import map_from_record
from safemesa.datasets.importers.write import import_logs

EPISODE = 200
RECORD = {
    "rows": "states",
    "dt": 0.05,
    "obs": ["x", "y", "speed", "yaw"],
    "action": [
        {"column": "steer", "low": -1.0, "high": 1.0},
        {"column": "gas", "low": 0, "high": 1},
    ],
    "columns": {"time": "t", "episode": "run"},
    "signal": ["bumper"],
    "cost": {"limit": "bumper > 0.5"},
}


def write_robot(path: Path, rows: int) -> None:
    """A log of nine columns, as a robot's logger writes it."""
    rng = np.random.default_rng(0)
    run, step = np.divmod(np.arange(rows), EPISODE)
    values = np.column_stack(
        [step * 0.05, run, *rng.normal(size=(4, rows)), *rng.uniform(size=(2, rows)), step == 199]
    )
    kinds = ["%.2f", "%d", *["%.6f"] * 6, "%d"]
    header = "t,run,x,y,speed,yaw,steer,gas,bumper"
    np.savetxt(path, values, kinds, ",", header=header, comments="")


def csv_import(rows: int) -> dict[str, Callable[[], None]]:
    """Reads one file of `rows` rows: our whole import, and pyarrow's plain read if it is there."""
    folder = Path(tempfile.mkdtemp(prefix="safemesa-bench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_robot(folder / "robot.csv", rows)
    mapping, out = map_from_record(RECORD), folder / "out"

    def ours() -> None:
        shutil.rmtree(out, ignore_errors=True)
        import_logs([folder / "robot.csv"], mapping, out)

    candidates: dict[str, Callable[[], None]] = {"import": ours}
    try:
        from pyarrow import csv
    except ImportError:
        return candidates

    def plain() -> None:
        # One core, as ours.
        csv.read_csv(folder / "robot.csv", read_options=csv.ReadOptions(use_threads=False))

    return {**candidates, "pyarrow": plain}
