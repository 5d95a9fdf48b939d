"""Jobs of a grid in SLURM's queue, through submitit."""

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from safemesa.core.errors import ConfigurationError, OutputFolderError, SafemesaError
from safemesa.core.files import read_json, write_json
from safemesa.experiments.grid.executors.slurm_config import SlurmConfig
from safemesa.experiments.grid.grid_folder import GridFolder
from safemesa.phases.workers import WorkerError

Cluster = Literal["slurm", "local"]
"""`local`: jobs are processes of this machine."""

REQUEUES = 100
"""A job whose time is over is queued again at most so often."""


class JobQueue:
    """Jobs of a grid. `jobs.json` has the job of each run, and that of the collection."""

    def __init__(self, folder: GridFolder, config: SlurmConfig, cluster: Cluster) -> None:
        self.logs = folder.path.absolute() / "slurm"
        self.file, self.config, self.cluster = self.logs / "jobs.json", config, cluster

    def submit(
        self, work: Mapping[str, Any], cpus: int, runs: Mapping[str, Sequence[str]] | None = None
    ) -> dict[str, Any]:
        """Submits calls, given by name, as one array; remembers the jobs.

        `runs` has the names of the runs that a call carries out, where its own name is none.
        """
        if not work:
            return {}
        import submitit

        executor = submitit.AutoExecutor(
            folder=self.logs / "%j", cluster=self.cluster, slurm_max_num_timeout=REQUEUES
        )
        executor.update_parameters(
            name="safemesa",
            timeout_min=self.config.time,
            cpus_per_task=cpus,
            gpus_per_node=self.config.gpus,
            mem_gb=self.config.memory,
            slurm_array_parallelism=self.config.parallel,
            slurm_setup=list(self.config.setup),
            slurm_additional_parameters={"requeue": True, **self.config.extra()}
            | ({"partition": self.config.partition} if self.config.partition else {}),
        )
        with executor.batch():
            jobs = {name: executor.submit(call) for name, call in work.items()}
        known = self._known()
        for name, job in jobs.items():
            known |= dict.fromkeys((runs or {}).get(name, [name]), str(job.job_id))
        write_json(self.file, {"jobs": known})
        return jobs

    def find(self, names: Iterable[str]) -> dict[str, Any]:
        """Jobs of an earlier command that are waiting or at work, by the name of a run."""
        import submitit

        if self.cluster != "slurm":
            return {}
        known = self._known()
        found = {
            name: submitit.SlurmJob(folder=self.logs / "%j", job_id=known[name])
            for name in names
            if name in known
        }
        alive = self.alive(found)
        return {name: job for name, job in found.items() if name in alive}

    def alive(self, jobs: dict[str, Any]) -> set[str]:
        """Names of jobs that are waiting or at work."""
        if self.cluster != "slurm":
            return {name for name, job in jobs.items() if not job.done()}
        pending = {name: job for name, job in jobs.items() if not job.paths.result_pickle.exists()}
        if not pending:
            return set()
        queued = _queued_jobs()
        return {name for name, job in pending.items() if str(job.job_id) in queued}

    def error(self, job: Any) -> SafemesaError | None:
        """Why a job that is over failed; None where it did not."""
        where = f"Its output is in {job.paths.stderr}."
        if not job.paths.result_pickle.exists():
            return WorkerError(
                "its job ended without a result (cancelled, out of memory, or over its time too "
                f"often?). {where}"
            )
        found = job.exception()
        if found is None:
            return None
        lines = [line for line in str(found).splitlines() if "Error: " in line]
        return WorkerError(f"{lines[-1] if lines else found} {where}")

    def _known(self) -> dict[str, str]:
        if not self.file.is_file():
            return {}
        return read_json(self.file, error=OutputFolderError)["jobs"]


def _queued_jobs() -> set[str]:
    """Ids of this person's jobs that are waiting or at work; those of arrays one by one."""
    command = ["squeue", "--me", "--noheader", "--array", "--format=%F_%K"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        detail = getattr(error, "stderr", "") or str(error)
        raise ConfigurationError(
            f"`{' '.join(command)}` failed: {detail.strip()}. Is this a machine of the cluster?"
        ) from error
    # A job that is in no array has no index.
    return {word.removesuffix("_N/A") for word in done.stdout.split()}
