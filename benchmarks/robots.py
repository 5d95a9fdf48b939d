"""Simulated robots: HalfCheetah's step over raw MuJoCo, and what the host loop adds to a step."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from benchmarks.ours import Size
from safemesa.domains.half_cheetah import DISABLED
from safemesa.learners.config import RiskConfig, SACConfig
from safemesa.phases.collection.tasks import sample_test_task
from safemesa.phases.config import DeployConfig, RunConfig
from safemesa.phases.deployment.deployment import HostDeployment
from safemesa.phases.deployment.guarded_sac import build_agent
from safemesa.phases.deployment.host import compiled_step, deploy_host, host_step
from safemesa.phases.deployment.timeline import unchanging
from safemesa.phases.seeds import SeedAxis
from safemesa.phases.storage.artefacts import prior_template

Run = Callable[[], None]


def halfcheetah_steps(steps: int) -> tuple[Run, Run]:
    """The domain's environment, and raw MuJoCo with the same substeps and a contact refresh."""
    task = sample_test_task(DISABLED, 0)
    env = DISABLED.make_env(task, terminate_on_violation=False)
    actions = np.random.default_rng(0).uniform(-1, 1, (steps, 6))
    model = env.stock.model  # type: ignore[attr-defined]
    data = mujoco.MjData(model)

    def ours() -> None:
        env.reset(seed=0)
        for action in actions:
            env.step(action)

    def raw() -> None:
        mujoco.mj_resetData(model, data)
        for action in actions:
            data.ctrl[:] = action
            mujoco.mj_step(model, data, nstep=DISABLED.frame_skip)
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            mujoco.mj_collision(model, data)

    return ours, raw


def host_loop(size: Size, steps: int) -> dict[str, Run]:
    """The host loop of Phase 3 and its parts.

    `calls`: the compiled step alone, called as the loop calls it. `updates`: the same steps in one
    compiled loop. `environment`: the simulator alone.
    """
    hidden = (size.hidden, size.hidden)
    config = RunConfig(
        domain="halfcheetah",
        risk=RiskConfig(hidden=hidden),
        sac=SACConfig(hidden=hidden, batch=size.batch, warmup_steps=0),
        deploy=DeployConfig(episodes=10**6, steps=10**5, chunk_steps=10**6),
    )
    agent = build_agent(config, DISABLED.spaces)
    task = sample_test_task(DISABLED, 0)
    deployment = HostDeployment(
        agent=agent,
        configs=[config],
        timelines=[unchanging(task)],
        domain=DISABLED,
        terminate_on_violation=False,
    )
    model = prior_template(config, DISABLED.spaces).model
    roots, simulators = deployment.roots(0), deployment.simulators
    first = deployment.start(0, model, None)
    # Past the steps in which nothing is learned yet.
    first = replace(
        first, step=jnp.int32(1_000), replay=replace(first.replay, written=jnp.int32(1_000))
    )
    limited = replace(agent, config=replace(agent.config, steps=1_000 + steps))
    obs = simulators.reset(0, 0, 0)
    result, _ = simulators.step({0: (np.zeros(6, np.float32), 0)})[0]
    actions = np.random.default_rng(0).uniform(-1, 1, (steps, 6)).astype(np.float32)

    @partial(jax.jit, donate_argnums=0)
    def many(state):
        def body(_, state):
            return host_step(agent, True, roots, state, result, jnp.asarray(obs))[0]

        return jax.lax.fori_loop(0, steps, body, state)

    def loop() -> None:
        final = deploy_host(
            SeedAxis(1), limited, simulators, [roots], [first], lambda seed, chunk: None
        )
        jax.block_until_ready(final)

    def updates() -> None:
        jax.block_until_ready(many(jax.tree.map(jnp.copy, first)))

    root_leaves = jax.tree.leaves(roots)
    structures = jax.tree.structure(roots), jax.tree.structure(first)
    step = compiled_step(SeedAxis(1), limited, True, *structures)

    def calls() -> None:
        leaves = jax.tree.leaves(jax.tree.map(jnp.copy, first))
        for _ in range(steps):
            leaves, action, _, _ = step(root_leaves, leaves, result, obs)
            np.array(action)

    def environment_steps() -> None:
        simulators.reset(0, 0, 0)
        for action in actions:
            simulators.step({0: (action, 0)})

    return {"loop": loop, "calls": calls, "updates": updates, "environment": environment_steps}
