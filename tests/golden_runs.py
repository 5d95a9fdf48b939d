"""What is computed, fixed bit for bit: a change that is to change no result keeps these hashes.

`programs` hash what JAX traces of each phase of tiny runs: quick, since nothing is compiled, and
the same on every processor. `runs` hash the files that such runs leave: minutes, and of a processor
and its libraries alone, so that `golden_runs.json` has an entry per `platform_key`.

`python tests/golden_runs.py programs` (or `runs`) prints them, and `--write` puts them into that
file. Do that only with a change that is meant to change results, which CHANGELOG.md then says, or
for libraries that the file does not know. A program may be written in another way and compute the
same: then `runs` must be equal before and after, and `programs` are written anew.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import sys
import tempfile
import warnings
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("golden_runs.json")

# One thread, so that sums have one order; unoptimised, since compiling takes most of the time.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "OMP_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false --xla_backend_optimization_level=0",
}

RUNS = (
    ("maml+recovery_rl", "navigation1"),
    ("meta_sgd+sqrl", "navigation2"),
    ("safemesa", "maze"),
    ("multitask+lagrangian", "cartpole"),
    ("maml+csc", "halfcheetah"),
    ("scratch+rcpo", "halfcheetah_partial"),
    ("scratch+none", "ant"),
    ("scratch+penalty", "navigation1"),
    ("carl_offline_dtest", "navigation2"),
)
"""Every domain, guard and meta-learner once, and CARL."""

MORE = (
    ("mesa", "cartpole"),
    ("multitask", "ant"),
    ("mesa_metasgd", "halfcheetah"),
    ("mesa_as_printed", "navigation2"),
)
"""Collections by SAC, and other settings of the arms; run, not traced."""


def processor_features() -> list[str]:
    """What of the processor decides how loops are vectorised."""
    try:
        flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    except OSError:
        return []
    return sorted({"avx", "avx2", "avx512f", "fma"} & set(flags))


def platform_key() -> str:
    """What the results of these runs depend on beside the sources."""
    packages = ("jaxlib", "jax", "optax", "numpy", "mujoco")
    versions = [f"{package} {metadata.version(package)}" for package in packages]
    return " ".join([platform.system(), platform.machine(), *processor_features(), *versions])


def tiny_run(arm: str, domain: str, sac_logs: bool) -> Any:
    """The configuration of a run of seconds."""
    from safemesa.experiments.arms import configure

    config = configure(arm, domain, "quick")
    plane = domain.startswith(("navigation", "maze"))
    return replace(
        config,
        seed=7,
        data=replace(
            config.data,
            train_tasks=4 if plane else 2,
            train_transitions=300 if plane else 1_200,
            test_transitions=200,
            train_policy="sac" if sac_logs and not plane else "random",
        ),
        risk=replace(config.risk, hidden=(8,)),
        rehearsal=replace(config.rehearsal, rows=min(config.rehearsal.rows, 200)),
        meta=small(config.meta, iterations=12, tasks=2, support_batch=8, query_batch=8),
        adapt=replace(config.adapt, steps=min(config.adapt.steps, 4), scratch_steps=4, batch=8),
        sac=replace(config.sac, hidden=(8,), batch=8, warmup_steps=5),
        deploy=replace(config.deploy, episodes=3, steps=60, chunk_steps=30),
        carl=replace(
            config.carl,
            hidden=(8,),
            weight_decay=(1e-4, 1e-4),
            horizon=3,
            batch=8,
            log_updates=20,
            source_episodes=2,
            source_epochs=0.5,
            test_log_updates=10,
        ),
    )


def run_hashes(arm: str, domain: str, sac_logs: bool) -> dict[str, str]:
    """A hash per file of results that a tiny run leaves."""
    from safemesa.phases.run import RunOptions, run

    config = tiny_run(arm, domain, sac_logs)
    with tempfile.TemporaryDirectory() as working, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few violations in so small a log
        folder = Path(working) / "run"
        run([config], [folder], RunOptions(data_dir=Path(working) / "data"))
        files = sorted(folder.rglob("*.safetensors")) + sorted(folder.rglob("*.f32"))
        found = {str(file.relative_to(folder)): digest(file.read_bytes()) for file in files}
        for name in ("metrics.jsonl", "learning.jsonl"):
            lines = [json.loads(line) for line in (folder / name).read_text().splitlines()]
            for line in lines:
                line.pop("wall_s", None)
            found[name] = digest(json.dumps(lines).encode())
        return found


def small(settings, **values):
    """Settings of a meta-learner with those of the values that it knows."""
    return replace(
        settings, **{name: new for name, new in values.items() if hasattr(settings, name)}
    )


def digest(content: bytes) -> str:
    """Enough of a hash to be told apart."""
    return hashlib.sha256(content).hexdigest()[:16]


class Programs:
    """What is traced of the phases of one run; arrays are shapes, so that nothing is computed."""

    def __init__(self, arm: str, domain: str) -> None:
        import jax

        from safemesa.domains.registry import domain as find_domain
        from safemesa.networks.normaliser import identity_normaliser
        from safemesa.phases.build import fresh_risk_networks

        self.config, self.world = tiny_run(arm, domain, False), find_domain(domain)
        self.spaces = self.world.spaces
        self.critic, self.recovery = jax.eval_shape(
            lambda: fresh_risk_networks(self.config, self.spaces)
        )
        self.normaliser = identity_normaliser(self.spaces.obs_size)
        self.hashes: dict[str, str] = {}

    def add(self, phase: str, function: Any, *arguments: Any) -> None:
        """Traces a function."""
        import jax

        text = str(jax.make_jaxpr(function)(*arguments))
        # Names and addresses of functions are no computation.
        text = re.sub(r"name=\S+|<function .*?>|0x[0-9a-f]+", "", text)
        self.hashes[phase] = digest(text.encode())

    def logs(self) -> Any:
        """Two training logs of two episodes, and one of the new robot."""
        import numpy as np

        from safemesa.datasets.offline_tasks import OfflineTasks, TaskLog

        rows = 20
        ends = np.arange(1, rows + 1) % 10 == 0
        columns = {
            "obs": np.zeros((rows, self.spaces.obs_size), np.float32),
            "action": np.zeros((rows, self.spaces.action_size), np.float32),
            "reward": np.zeros(rows, np.float32),
            "cost": ends.astype(np.float32),
            "next_obs": np.zeros((rows, self.spaces.obs_size), np.float32),
            "terminated": ends,
            "truncated": np.zeros(rows, np.bool_),
            "episode": np.arange(rows, dtype=np.int32) // 10,
            "step": np.arange(rows, dtype=np.int32) % 10,
        }
        train = [
            TaskLog(name=f"train-{one}", role="train", parameters={}, columns=columns)
            for one in range(2)
        ]
        test = replace(train[0], name="test", role="test")
        return OfflineTasks(
            domain="golden", spaces=self.spaces, train=tuple(train), test=test, provenance={}
        )

    def fleet(self) -> Any:
        """Rows of the fleet that a model rehearses; None where it rehearses none."""
        import numpy as np

        from safemesa.phases.rehearsal import rehearsal_layout

        width = rehearsal_layout(self.spaces).width
        return np.zeros((20, width), np.float32) if self.config.rehearsal.rows else None

    def prior_and_adaptation(self) -> None:
        """Phases 1 and 2 of an arm that has a critic."""
        import jax
        import jax.numpy as jnp
        import numpy as np

        from safemesa.datasets.sampling import make_row_index
        from safemesa.phases import adapt, build, log_tables as tables, meta_train
        from safemesa.phases.rehearsal import rehearsal_layout
        from safemesa.phases.storage.artefacts import Prior, RiskModel

        config, logs = self.config, self.logs()
        key, number = jax.random.key(0), jnp.int32(3)
        if adapt.uses_training_logs(config):
            learners = build.prior_learners(config)
            rows = tables.build_train_tables(logs, self.normaliser, config.sampling, 0)
            start = jax.eval_shape(
                lambda critic, recovery: meta_train.MetaTrainState(
                    learners.meta.init(critic), learners.risk.init_recovery(recovery)
                ),
                self.critic,
                self.recovery,
            )
            chunk = partial(meta_train.meta_train_chunk, learners, rows, None)
            self.add("meta_train", chunk, start, key, number, number)
        learners = build.adaptation_learners(config)
        log = logs.only_log()
        table = tables.build_log_table(
            (log,), self.spaces, self.normaliser, config.sampling.next_action
        )
        index = make_row_index([np.arange(20)], [np.asarray(log.columns["cost"])])
        fleet, rehearsed = self.fleet(), 0
        layout = rehearsal_layout(self.spaces)
        carried = None if fleet is None else tables.LogTable(jnp.asarray(fleet), layout)
        if carried is not None:
            rehearsed = round(config.rehearsal.adapt_share * config.adapt.batch)
        rows = adapt.AdaptTables(table, index, carried)
        start = jax.eval_shape(learners.risk.init, self.critic, self.recovery)
        chunk = partial(adapt.adapt_chunk, learners, config.adapt.batch, rehearsed, rows)
        self.add("adapt", chunk, start, key, number, number)
        if learners.meta.inner_steps:
            model = RiskModel(self.critic, self.recovery, self.normaliser)
            rates = jax.tree.map(lambda _: jax.ShapeDtypeStruct((), jnp.float32), self.critic)
            step = partial(adapt.inner_adaptation, learners)
            self.add("inner step", step, Prior(model, rates), start, rows, key)

    def deployment(self) -> None:
        """Phase 3, and the domain's own logs where it is compiled."""
        import jax
        import jax.numpy as jnp
        import numpy as np

        from safemesa.core.types import PyTree
        from safemesa.datasets.replay import Replay
        from safemesa.domains.base import AbstractJaxDomain, Step, sample_test_task
        from safemesa.phases.agent_kinds import make_agent
        from safemesa.phases.carl.carl_agent import WorldModel
        from safemesa.phases.collection.compiled import _rollout
        from safemesa.phases.deployment import compiled, deploy_state as phase_3, host
        from safemesa.phases.storage.artefacts import RiskModel

        agent, key = make_agent(self.config, self.spaces), jax.random.key(0)
        width, rows = agent.layout.width, 40

        def first(critic: PyTree, recovery: PyTree) -> PyTree:
            if self.config.agent == "carl":
                source = np.zeros((4, width), np.float32)
                return agent.initial(WorldModel(agent.carl.init(key=key), source, 4), key=key)
            limit = jnp.float32(0.5)
            model = RiskModel(critic, recovery, self.normaliser, limit, self.fleet())
            return agent.initial(model, key=key)

        number = jax.ShapeDtypeStruct((), jnp.int32)
        obs = jax.ShapeDtypeStruct((self.spaces.obs_size,), jnp.float32)
        positions = jax.ShapeDtypeStruct((rows,), jnp.int32)
        state = phase_3.DeployState(
            agent=jax.eval_shape(first, self.critic, self.recovery),
            replay=Replay(jax.ShapeDtypeStruct((rows, width), jnp.float32), number, 5),
            violations=phase_3.ViolationIndex(positions, number),
            env=(),
            obs=obs,
            step=number,
            episode=number,
            tally=jax.eval_shape(phase_3.empty_tally),
        )
        roots = phase_3.deploy_roots(0)
        task = sample_test_task(self.world, 0)
        if isinstance(self.world, AbstractJaxDomain):
            world = self.world
            env, _ = jax.eval_shape(lambda one: world.reset(task, key=one), key)
            chunk = partial(compiled.deploy_chunk, agent, world, 30, True, task, roots)
            self.add("deploy", chunk, replace(state, env=env), number)
            self.add("collect", lambda one: _rollout(world, task, one, 0), key)
            return
        act = jax.eval_shape(lambda one: phase_3.act_at(agent, one, roots), state)
        flag, real = jax.ShapeDtypeStruct((), jnp.bool_), jax.ShapeDtypeStruct((), jnp.float32)
        result = Step(obs, real, real, flag, flag, flag)
        step = partial(host.host_step, agent, True, roots)
        self.add("deploy", step, replace(state, env=act), result, obs)


def program_hashes(arm: str, domain: str) -> dict[str, str]:
    """A hash per phase of what is traced of a run."""
    from safemesa.guards.registry import asks_a_critic

    programs = Programs(arm, domain)
    if programs.config.agent == "sac" and asks_a_critic(programs.config.guard):
        programs.prior_and_adaptation()
    programs.deployment()
    return programs.hashes


def programs_key() -> str:
    """What programs depend on beside the sources."""
    return " ".join(f"{name} {metadata.version(name)}" for name in ("jax", "optax", "equinox"))


def main() -> None:
    """Prints or writes the hashes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("programs", "runs"))
    parser.add_argument("--write", action="store_true", help="make them the golden ones")
    flags = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()):
        # XLA reads its flags once.
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ENVIRONMENT})
    if flags.what == "programs":
        key, found = programs_key(), {f"{a} on {d}": program_hashes(a, d) for a, d in RUNS}
    else:
        key, found = platform_key(), {f"{a} on {d}": run_hashes(a, d, False) for a, d in RUNS}
        found |= {f"{a} on {d}": run_hashes(a, d, True) for a, d in MORE}
    if flags.write:
        golden = json.loads(FILE.read_text()) if FILE.is_file() else {}
        golden[key] = found
        FILE.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")
    print(json.dumps(found, indent=1, sort_keys=True))


if __name__ == "__main__":
    main()
