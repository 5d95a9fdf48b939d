"""The last episode of a finished run as a moving picture, made again from what the run stored."""

from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from safemesa.core.errors import CheckpointError, ConfigurationError
from safemesa.core.files import atomic_path
from safemesa.core.types import PyTree
from safemesa.domains.base import AbstractJaxDomain
from safemesa.domains.host import AbstractHostDomain
from safemesa.domains.registry import domain as find_domain
from safemesa.experiments.measures.run_contents import last_episode, run_config
from safemesa.phases.collection.tasks import sample_test_task
from safemesa.phases.deployment.host import HostEnvironment

MAXIMUM_FRAMES = 500
"""Of longer episodes every second, third, ... state is shown."""


def write_video(folder: Path) -> Path:
    """Writes `episode.gif` into a run folder, of its last episode, in real time where it fits.

    A simulated robot is reset and driven as it was then: an episode is a function of its seed and
    its actions.

    Raises:
        ConfigurationError: Pillow or OpenGL is missing, or the domain cannot be drawn.
        CheckpointError: the replay is missing or damaged.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ConfigurationError(
            "--video needs Pillow. Install safemesa[mujoco] or safemesa[plots]."
        ) from error
    config = run_config(folder)
    domain = find_domain(config.domain)
    task = sample_test_task(domain, config.seed)
    number, columns = last_episode(folder)
    stride = -(-(len(columns["obs"]) + 1) // MAXIMUM_FRAMES)
    if isinstance(domain, AbstractJaxDomain):
        states = _drawn_states(domain, task, columns)
    elif isinstance(domain, AbstractHostDomain):
        states = _driven_again(domain, task, config.seed, number, columns)
    else:
        raise ConfigurationError(f"{domain.name} cannot be drawn.")
    frames = [Image.fromarray(frame) for index, frame in enumerate(states) if index % stride == 0]
    milliseconds = min(max(round(1000.0 * domain.spaces.dt * stride), 20), 100)
    path = Path(folder) / "episode.gif"
    with atomic_path(path) as temporary:
        frames[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=frames[1:],
            duration=milliseconds,
            loop=0,
            optimize=True,
        )
    return path


def _drawn_states(
    domain: AbstractJaxDomain, task: PyTree, columns: dict[str, np.ndarray]
) -> Iterator[np.ndarray]:
    """Pictures of the observed states."""
    for obs in [*columns["obs"], columns["next_obs"][-1]]:
        yield domain.render(task, domain.state_at(jnp.asarray(obs)))


def _driven_again(
    domain: AbstractHostDomain,
    task: PyTree,
    run_seed: int,
    number: int,
    columns: dict[str, np.ndarray],
) -> Iterator[np.ndarray]:
    """Pictures of the simulator while it takes the stored actions.

    Raises:
        CheckpointError: the robot moves otherwise than in the run: another simulator version.
    """
    env = domain.make_env(task, render_mode="rgb_array")
    environment = HostEnvironment(env, run_seed, domain.spaces)
    environment.reset(number)
    yield _picture(env.render())
    for index, action in enumerate(columns["action"]):
        result, _ = environment.step(action, number, goes_on=False)
        if not np.allclose(result.obs, columns["next_obs"][index], atol=1e-3):
            raise CheckpointError(
                f"step {index} of the last episode leads elsewhere than in the run; the installed "
                "simulator is another version. Use the one named in config.json."
            )
        yield _picture(env.render())
    env.close()


def _picture(rendered: object) -> np.ndarray:
    assert isinstance(rendered, np.ndarray)
    return rendered
