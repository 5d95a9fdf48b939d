"""Writes the logs of a simulated fleet as CSV, as a user would have them.

Twelve robots and a new one; each file holds what the logger of one robot wrote: a row per moment,
with the time, the number of the run, the position, the command and whether the bumper was hit.
"""

import csv
from dataclasses import replace
from pathlib import Path

import safemesa

MAP = """\
domain = "fleet"
rows = "states"          # a row is a moment; the next row shows what its command led to
dt = 1.0                 # seconds between rows
horizon = 100            # longest run, in steps

obs = [
  {name = "x", column = "x_cm", scale = 0.01, unit = "m"},
  {name = "y", column = "y_cm", scale = 0.01, unit = "m"},
]

[[action]]
name = "move_x"
column = "cmd_x"
low = -1.0
high = 1.0

[[action]]
name = "move_y"
column = "cmd_y"
low = -1.0
high = 1.0

[[signal]]               # what the limit reads beside obs
name = "bumper"

[columns]
time = "t"
episode = "run"

[cost]
limit = "bumper > 0.5"

[tasks]
test = "new_robot"
"""


def write_robot(path: Path, log) -> None:
    """One row per moment; a run's last row is the state in which it ended."""
    columns = log.columns
    with open(path, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["t", "run", "x_cm", "y_cm", "cmd_x", "cmd_y", "bumper"])
        for row in range(log.transitions):
            run, step = int(columns["episode"][row]), int(columns["step"][row])
            command = [f"{value:.5f}" for value in columns["action"][row]]
            state = [f"{100 * value:.4f}" for value in columns["obs"][row]]
            table.writerow([step, run, *state, *command, 0])
            if columns["terminated"][row] or columns["truncated"][row]:
                state = [f"{100 * value:.4f}" for value in columns["next_obs"][row]]
                table.writerow([step + 1, run, *state, *command, int(columns["cost"][row])])


config = safemesa.configure("mesa", "navigation2", "quick")
config = replace(config, data=replace(config.data, test_transitions=400))
folder = Path("fleet_csv")
folder.mkdir(exist_ok=True)
for number, log in enumerate(safemesa.collect_train(config).train):
    write_robot(folder / f"robot_{number:02d}.csv", log)
write_robot(folder / "new_robot.csv", safemesa.collect_test(config).only_log())
Path("fleet.toml").write_text(MAP)
print(f"Wrote {len(list(folder.iterdir()))} files to {folder} and the map to fleet.toml.")
