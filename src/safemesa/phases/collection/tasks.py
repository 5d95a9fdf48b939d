"""Which tasks a data seed and a run seed stand for."""

from safemesa.core.streams import task_generator
from safemesa.core.types import PyTree
from safemesa.domains.base import AbstractDomain, sample_test_task as sample_test_task
from safemesa.domains.host import AbstractHostDomain


def sample_train_tasks(domain: AbstractDomain, count: int, data_seed: int) -> list[PyTree]:
    """The training tasks of a data seed.

    Raises:
        ConfigurationError: the domain has a fixed, smaller number of them.
    """
    rng = task_generator(data_seed, "train")
    if isinstance(domain, AbstractHostDomain):
        return list(domain.train_tasks(count, rng))
    return [domain.sample_task(rng, "train") for _ in range(count)]
