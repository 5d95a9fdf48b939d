"""The last episode of a finished run as a moving picture, made again from what the run stored."""

from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from safemesa.core.errors import CheckpointError, ConfigurationError
from safemesa.core.files import atomic_path
from safemesa.domains.base import AbstractJaxDomain
from safemesa.domains.host import AbstractHostDomain
from safemesa.domains.registry import domain as find_domain
from safemesa.experiments.measures.run_contents import last_episode, run_config
from safemesa.experiments.runs.episode_lines import read_episode_lines
from safemesa.phases.deployment.host import HostEnvironment
from safemesa.phases.deployment.timeline import Timeline, timeline

MAXIMUM_FRAMES = 500
"""Of longer episodes every second, third, ... state is shown."""

MARK, MARK_HEIGHT = (215, 25, 28), 6
"""Colour and height, in pixels, of the bar on top of pictures of a robot that has changed."""


def write_video(folder: Path) -> Path:
    """Writes `episode.gif` into a run folder, of its last episode, in real time where it fits.

    A simulated robot is reset and driven as it was then: an episode is a function of its seed, its
    actions and the changes of its robot, from which on a red bar is on top.

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
    tasks = timeline(domain, config)
    number, columns = last_episode(folder)
    lines = read_episode_lines(folder)
    first = lines[number - 1]["env_steps"] if number else 0
    stride = -(-(len(columns["obs"]) + 1) // MAXIMUM_FRAMES)
    if isinstance(domain, AbstractJaxDomain):
        states = _drawn_states(domain, tasks, first, columns)
    elif isinstance(domain, AbstractHostDomain):
        states = _driven_again(domain, tasks, config.seed, number, first, columns)
    else:
        raise ConfigurationError(f"{domain.name} cannot be drawn.")
    began = min((change.step for change in tasks.changes), default=None)
    # A state is marked if a changed robot came to it, or is about to leave it.
    frames = [
        Image.fromarray(_marked(frame) if began is not None and first + index >= began else frame)
        for index, frame in enumerate(states)
        if index % stride == 0
    ]
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
    domain: AbstractJaxDomain, tasks: Timeline, first: int, columns: dict[str, np.ndarray]
) -> Iterator[np.ndarray]:
    """Pictures of the observed states, from the run's step `first` on."""
    for index, obs in enumerate([*columns["obs"], columns["next_obs"][-1]]):
        yield domain.render(tasks.task(first + index), domain.state_at(jnp.asarray(obs)))


def _driven_again(
    domain: AbstractHostDomain,
    tasks: Timeline,
    run_seed: int,
    number: int,
    first: int,
    columns: dict[str, np.ndarray],
) -> Iterator[np.ndarray]:
    """Pictures of the simulator while it takes the stored actions.

    Raises:
        CheckpointError: the robot moves otherwise than in the run: another simulator version.
    """
    env = domain.make_env(tasks.tasks[0], render_mode="rgb_array")
    environment = HostEnvironment(
        env,
        run_seed,
        domain.spaces,
        timeline=tasks if tasks.changes else None,
        taken=first,
    )
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


def _marked(frame: np.ndarray) -> np.ndarray:
    marked = frame.copy()
    marked[:MARK_HEIGHT] = MARK
    return marked


def _picture(rendered: object) -> np.ndarray:
    assert isinstance(rendered, np.ndarray)
    return rendered
