"""Figures of the paper from nothing: runs what is missing, draws, collects into a report."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from safemesa.core.errors import DatasetError, SafemesaError
from safemesa.core.files import write_atomic, write_json
from safemesa.core.outputs import check_outputs
from safemesa.experiments.grid.executors.executor import unfinished
from safemesa.experiments.grid.executors.local import LocalExecutor
from safemesa.experiments.grid.grid_folder import Grid, GridFolder, GridRun
from safemesa.experiments.measures.calibrate_runs import calibrate_runs, table_rows
from safemesa.experiments.paper.claims_table import write_claims
from safemesa.experiments.paper.estimate import Estimate, estimate
from safemesa.experiments.paper.montage import montage
from safemesa.experiments.paper.paper_figures import curves_figure, maps_figure, sizes_figure
from safemesa.experiments.paper.plans import PLANS, FigurePlan, find_plan
from safemesa.experiments.paper.settings_tables import tables_markdown
from safemesa.experiments.report.report_page import write_report
from safemesa.experiments.report.result_figures import png
from safemesa.experiments.runs.packed_runs import RUNS_FILE, packed_runs
from safemesa.experiments.runs.run_records import RunRecord, scan_runs
from safemesa.phases.progress import BarProgress
from safemesa.phases.storage.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Production:
    """Where and how.

    Attributes:
        out: Folder of the runs (a grid's) and of `figures/`.
        preset: Sizes of the runs.
        seeds: Paired over all arms.
        data_dir: Training logs.
        jobs: Processes at a time; None is one per core.
        draw_only: Draw from what is there.
        command: What made it.
        seeds_per_process: Seeds of an arm that run side by side in one process.
        simulators: Processes that step simulators, where runs are made for an accelerator: arms
            that share Phase 3 are then side by side, too. None: runs are made for a CPU.
    """

    out: Path
    preset: str
    seeds: tuple[int, ...]
    data_dir: Path
    jobs: int | None
    draw_only: bool
    command: str
    seeds_per_process: int = 1
    simulators: int | None = None

    def figure(self, name: str) -> Path:
        """Runs what a figure lacks, draws it, and returns its PNG.

        Raises:
            GridError: some runs failed; the others are finished.
            DatasetError: with `draw_only`, there is nothing to draw.
        """
        plan = find_plan(name)
        check_outputs(self.out, (f"figures/{name}.png",))
        if name == "figure2":
            check_outputs(self.out, ("calibration.json",))
        if plan.conditions and not self.draw_only:
            self._carry_out(plan.runs(self.preset, self.seeds))
        path = self._draw(name, plan)
        if name == "figure2":
            self._calibration()
        return path

    def everything(self) -> list[Path]:
        """All figures, the claims, the tables and one HTML report; what cannot be drawn is said."""
        check_outputs(self.out, ("results.md", "calibration.json"))
        if not self.draw_only:
            runs = {
                run.name: run
                for plan in PLANS.values()
                for run in plan.runs(self.preset, self.seeds)
            }
            self._carry_out(tuple(runs.values()))
        made = []
        for name, plan in PLANS.items():
            try:
                made.append(self._draw(name, plan))
            except SafemesaError as error:
                print(f"{name} is not drawn: {error}", file=sys.stderr)
        calibration = self._calibration()
        claims = write_claims(self.out, self.preset, calibration, self.command)
        report = write_report([self.out], self.out / "report", self.command)
        page = "\n".join(
            [
                f"# The paper at the preset `{self.preset}`\n",
                *(
                    f"## {PLANS[path.stem].title}\n\n![{path.stem}](figures/{path.name})\n"
                    for path in made
                ),
                "## Claims\n",
                claims,
                "## Settings\n",
                tables_markdown(self.preset),
            ]
        )
        write_atomic(self.out / "results.md", page.encode())
        return [*made, self.out / "claims.md", self.out / "results.md", report]

    def _calibration(self) -> Path | None:
        """Calibration over adaptation steps on the maze, seed by seed, for Figure 2's claim."""
        folders = [one.path for one in self._records(PLANS["figure2"])]
        if not folders:
            return None
        rows = table_rows(calibrate_runs(folders, all_seeds=True, progress=BarProgress()))
        path = self.out / "calibration.json"
        write_json(path, {"command": self.command, "rows": rows})
        return path

    def figures(self, names: Sequence[str]) -> list[Path]:
        """Runs what these figures lack, all in one grid, and draws them."""
        check_outputs(self.out, tuple(f"figures/{name}.png" for name in names))
        self._carry_out(self.grid(names).runs)
        return [self._draw(name, find_plan(name)) for name in names]

    def estimated(self, names: Sequence[str], seconds: float) -> Estimate:
        """How long the unfinished runs of some figures take, measured for `seconds`."""
        grid, folder = self.grid(names), GridFolder(self.out)
        folder.check(grid)
        groups = unfinished(grid, folder)
        print(
            f"{len(groups)} groups of runs are unfinished. Measuring for {seconds:.0f} s, beside "
            "compilation.",
            file=sys.stderr,
        )
        return estimate(groups, self.data_dir, self.simulators or 0, seconds)

    def grid(self, names: Sequence[str]) -> Grid:
        """The runs of some figures."""
        plans = [find_plan(name) for name in names]
        return self._grid(
            tuple(
                {
                    run.name: run for plan in plans for run in plan.runs(self.preset, self.seeds)
                }.values()
            )
        )

    def _grid(self, runs: tuple[GridRun, ...]) -> Grid:
        return Grid(
            runs=runs,
            seeds_per_process=self.seeds_per_process,
            arms_together=self.simulators is not None,
        )

    def _carry_out(self, runs: tuple[GridRun, ...]) -> None:
        executor = LocalExecutor(
            data_dir=self.data_dir,
            command=self.command,
            jobs=self.jobs,
            simulators=self.simulators or 0,
        )
        executor.carry_out(self._grid(runs), GridFolder(self.out))

    def _records(self, plan: FigurePlan) -> list[RunRecord]:
        """The plan's finished runs.

        Raises:
            DatasetError: there are runs of another preset.
        """
        wanted = {GridFolder(self.out).run(run).path for run in plan.runs(self.preset, self.seeds)}
        packed = packed_runs(self.out).configs if (self.out / RUNS_FILE).is_file() else {}
        finished = {self.out / name for name in packed}
        there = [path for path in wanted if path in finished or RunFolder(path).finished]
        found = scan_runs(there).runs if there else ()
        others = dict.fromkeys(run.preset for run in found if run.preset != self.preset)
        if others:
            raise DatasetError(
                f"{self.out} has runs of the preset {', '.join(others)}, and {self.preset} is "
                "asked for. Give --preset, or another --out."
            )
        return list(found)

    def _draw(self, name: str, plan: FigurePlan) -> Path:
        path = self.out / "figures" / f"{name}.png"
        check_outputs(self.out, (f"figures/{name}.png",))
        # Drawn before, so that what fails leaves no folder.
        image = png(self._drawn(name, plan))
        write_atomic(path, image)
        return path

    def _drawn(self, name: str, plan: FigurePlan) -> Figure:
        if name == "figure3":
            figure, problems = montage()
            for problem in problems:
                print(problem, file=sys.stderr)
            return figure
        records = self._records(plan)
        if name == "figure2":
            return maps_figure(records)
        if name == "figure6a":
            return sizes_figure(records)
        return curves_figure(records, plan.domains)
