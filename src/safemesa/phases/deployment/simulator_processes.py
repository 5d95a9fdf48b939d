"""Simulators in processes of their own, for many runs side by side on one accelerator.

A process has a share of the runs. At each step it is sent the actions of all of them in one message
and answers with all that came of them. Imports JAX inside functions (see `Worker`).
"""

import multiprocessing
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from safemesa.phases.config import RunConfig
from safemesa.phases.workers import Tell, Worker


class SimulatorProcesses:
    """Steps the environments of some runs; what comes of it does not depend on the processes."""

    def __init__(self, configs: Sequence[RunConfig], processes: int) -> None:
        """Starts the processes, which make the environments of their runs in Phase 3."""
        self._place = {run: run % processes for run in range(len(configs))}
        self._workers: list[Worker] = []
        self._senders: list[Connection] = []
        context = multiprocessing.get_context("spawn")
        for place in range(processes):
            share = {run: configs[run] for run in self._place if self._place[run] == place}
            receiver, sender = context.Pipe(duplex=False)
            self._workers.append(Worker(_simulate, (receiver, share)))
            self._senders.append(sender)
            receiver.close()

    def reset(self, run: int, step: int, episode: int) -> np.ndarray:
        """As `Simulators` says."""
        place = self._place[run]
        self._send(place, ("reset", run, step, episode))
        return self._workers[place].receive()

    def step(self, actions: Mapping[int, tuple[np.ndarray, int]]) -> dict[int, Any]:
        """As `Simulators` says; all processes work at a time.

        Raises:
            SafemesaError: what an environment raised, or a WorkerError if a process ended.
        """
        shares: dict[int, dict[int, tuple[np.ndarray, int]]] = {}
        for run, action in actions.items():
            shares.setdefault(self._place[run], {})[run] = action
        for place, share in shares.items():
            self._send(place, ("step", share))
        found: dict[int, Any] = {}
        for place in shares:
            found |= self._workers[place].receive()
        return found

    def close(self) -> None:
        """Ends the processes."""
        for worker, sender in zip(self._workers, self._senders, strict=True):
            worker.stop()
            sender.close()

    def _send(self, place: int, request: tuple[Any, ...]) -> None:
        try:
            self._senders[place].send(request)
        except OSError:
            # It has ended, and `receive` says why.
            return


def _simulate(tell: Tell, requests: Connection, configs: Mapping[int, RunConfig]) -> None:
    """The life of a process: one answer per request."""
    import jax

    # An accelerator is the parent's. What little is computed here, the processor computes.
    jax.config.update("jax_platforms", "cpu")
    from safemesa.domains.host import AbstractHostDomain
    from safemesa.domains.registry import domain as find_domain
    from safemesa.phases.deployment.host import LocalSimulators, run_environment
    from safemesa.phases.deployment.timeline import timeline

    runs = list(configs)
    environments = []
    for config in configs.values():
        domain = find_domain(config.domain)
        assert isinstance(domain, AbstractHostDomain)
        environments.append(run_environment(domain, config, timeline(domain, config), True))
    simulators = LocalSimulators(environments)
    while True:
        try:
            what, *request = requests.recv()
        except EOFError:  # the parent has closed it
            return
        if what == "reset":
            run, step, episode = request
            tell(simulators.reset(runs.index(run), step, episode))
        else:
            (share,) = request
            places = {runs.index(run): action for run, action in share.items()}
            tell({runs[place]: found for place, found in simulators.step(places).items()})
