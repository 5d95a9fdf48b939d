"""What jobs of a cluster ask for. The command line's flags."""

from dataclasses import dataclass

from safemesa.core.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True, slots=True)
class SlurmConfig:
    """What a job asks for."""

    partition: str = ""
    """Partition; empty: the cluster's default."""
    time: int = 240
    """Minutes. A run that takes longer is queued again and goes on."""
    cpus: int = 1
    """Cores of a job; a run computes with one thread."""
    gpus: int = 0
    """Accelerators of a job; with some, think of --seeds-per-process."""
    memory: int = 8
    """GiB of a job."""
    parallel: int = 256
    """Jobs at the same time, at most."""
    collect_cpus: int = 8
    """Cores of the job that collects training logs."""
    options: tuple[str, ...] = ()
    """Further options of sbatch, such as `account=lab`."""
    setup: tuple[str, ...] = ()
    """Shell lines before each job, such as `module load cuda`."""

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        for name in ("time", "cpus", "memory", "parallel", "collect_cpus"):
            if getattr(self, name) < 1:
                flag = name.replace("_", "-")
                raise ConfigurationError(
                    f"--slurm.{flag} is {getattr(self, name)}; expected at least 1."
                )
        if self.gpus < 0:
            raise ConfigurationError(f"--slurm.gpus is {self.gpus}; expected 0 or more.")
        for option in self.options:
            if "=" not in option or option.startswith("-"):
                raise ConfigurationError(
                    f"--slurm.options has {option!r}; expected name=value, such as account=lab."
                )

    def extra(self) -> dict[str, str]:
        """`options` by name."""
        return dict(option.split("=", 1) for option in self.options)
