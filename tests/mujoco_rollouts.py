"""Random rollouts on host domains, as the log of the new robot is collected."""

import numpy as np

from safemesa.domains.host import AbstractHostDomain


def random_violations(domain: AbstractHostDomain, steps: int, seed: int) -> tuple[int, int]:
    """Violations and episodes of a uniform random policy on the test task, within `steps`."""
    task = domain.sample_task(np.random.default_rng(seed), "test")
    env = domain.make_env(task, terminate_on_violation=False)
    rng = np.random.default_rng([seed, 7])
    box = env.action_space
    violations = episodes = done = 0
    while done < steps:
        env.reset(seed=seed * 100_000 + episodes)
        episodes += 1
        for _ in range(min(domain.log_length, steps - done)):
            action = rng.uniform(box.low, box.high).astype(np.float32)
            _, _, terminated, truncated, info = env.step(action)
            done += 1
            violations += int(info["cost"])
            if terminated or truncated:
                break
    return violations, episodes
