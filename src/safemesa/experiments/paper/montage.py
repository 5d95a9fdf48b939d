"""Figure 3: a picture of each domain, on its test task."""

import jax
import numpy as np
from matplotlib.figure import Figure

from safemesa.core.errors import ConfigurationError
from safemesa.domains.base import AbstractDomain, AbstractJaxDomain
from safemesa.domains.host import AbstractHostDomain
from safemesa.domains.registry import domain as find_domain
from safemesa.experiments.report.result_figures import styled_figure

SHOWN = ("navigation1", "navigation2", "maze", "cartpole", "halfcheetah", "ant")


def montage() -> tuple[Figure, list[str]]:
    """The figure, and why a domain is not shown where it cannot be drawn."""
    problems = []
    with styled_figure(9.0, 6.4) as figure:
        for axes, name in zip(figure.subplots(2, 3).ravel(), SHOWN, strict=True):
            axes.set_axis_off()
            axes.set_title(name)
            try:
                axes.imshow(_picture(find_domain(name)))
            except (ConfigurationError, ImportError) as error:
                problems.append(f"{name} is not drawn: {error}")
                axes.text(0.5, 0.5, "cannot be drawn here", ha="center", va="center")
    return figure, problems


def _picture(domain: AbstractDomain) -> np.ndarray:
    """The first state of an episode."""
    task = domain.sample_task(np.random.default_rng(0), "test")
    if isinstance(domain, AbstractJaxDomain):
        state, _ = domain.reset(task, key=jax.random.key(0))
        return domain.render(task, state)
    assert isinstance(domain, AbstractHostDomain)
    env = domain.make_env(task, render_mode="rgb_array")
    env.reset(seed=0)
    for _ in range(5):
        env.step(env.action_space.sample() * 0)
    picture = env.render()
    env.close()
    assert isinstance(picture, np.ndarray)
    return picture
