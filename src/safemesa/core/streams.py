"""Random streams by purpose: no draw of one purpose is ever made again for another.

JAX's `split(key, n)[i]` is `fold_in(key, i)`, and NumPy takes the seeds `[s, 4]` and `[s, 4, 0]`,
or `s` and `[s, 0]`, for the same. Small numbers keep purposes apart only as long as nobody counts
there. Here a purpose is a number that no count reaches, and NumPy's generators are told it as a
`spawn_key`, which is never padded.
"""

import enum

import jax
import numpy as np
from jaxtyping import Array

from safemesa.core.types import Key

_FIRST = 2**31
"""Steps, episodes, tasks and parts of a `split` stay below it."""


class Stream(enum.IntEnum):
    """What is drawn. Numbers are kept: another one changes the draws of that purpose."""

    CRITIC = _FIRST + 0
    RECOVERY = _FIRST + 1
    TASK_LEARNER = _FIRST + 2
    CARL_MODEL = _FIRST + 3

    TRAINING_LOGS = _FIRST + 10
    TEST_LOG = _FIRST + 11
    HALVES = _FIRST + 13
    REHEARSAL = _FIRST + 14

    META_TRAIN = _FIRST + 20
    ADAPT = _FIRST + 21
    ACT = _FIRST + 22
    ENVIRONMENT = _FIRST + 23
    LEARN = _FIRST + 24
    RESET = _FIRST + 25
    CHUNK_METRICS = _FIRST + 26
    SIMULATOR = _FIRST + 27
    SENSOR_NOISE = _FIRST + 28
    GYM_EPISODE = _FIRST + 29
    CHANGE_STEP = _FIRST + 35
    CHANGE_TASK = _FIRST + 36

    FLEET_ROWS = _FIRST + 30
    FLEET_ACTIONS = _FIRST + 31
    UNBALANCED_ACTIONS = _FIRST + 32
    RECOVERY_ROWS = _FIRST + 33
    NEXT_ACTIONS = _FIRST + 34

    CARL_TASKS = _FIRST + 40
    CARL_DRIVE = _FIRST + 41
    CARL_SIMULATOR = _FIRST + 42
    CARL_FIT = _FIRST + 43
    CARL_RESAMPLE = _FIRST + 44

    ONLINE_ROWS = _FIRST + 50
    ONLINE_UPDATES = _FIRST + 51
    SHIELD_NOISE = _FIRST + 52
    KNOWN_ANSWERS = _FIRST + 53

    FEW_SHOT = _FIRST + 60
    EXCHANGED_COSTS = _FIRST + 61
    FOLDS = _FIRST + 62
    LIMIT_HALVES = _FIRST + 63
    RESAMPLED_EPISODES = _FIRST + 64
    CALIBRATION_LOG = _FIRST + 65
    CALIBRATION_ROLLOUTS = _FIRST + 66
    CALIBRATION_PAIRS = _FIRST + 67
    HEADROOM_LOG = _FIRST + 68
    HEADROOM_TAKEOVERS = _FIRST + 69
    SKILL_STARTS = _FIRST + 70
    SKILL_LOG = _FIRST + 71
    SKILL_ROLLOUTS = _FIRST + 72
    TAKEOVER_TRUTH = _FIRST + 73
    LIMIT_INTERVAL = _FIRST + 74
    STUMBLES = _FIRST + 75

    MONITOR_FLEET = _FIRST + 80
    MONITOR_FOLDS = _FIRST + 81
    MONITOR_ROWS = _FIRST + 82
    MONITOR_MODEL = _FIRST + 83
    MONITOR_THRESHOLD = _FIRST + 84
    MONITOR_LOG = _FIRST + 85
    MONITOR_UPKEEP = _FIRST + 86
    ADAPT_AGAIN = _FIRST + 87


def root_key(seed: int | Array, stream: Stream) -> Key:
    """The key of a purpose in the run, or the data, of a seed."""
    return substream(jax.random.key(seed), stream)


def substream(key: Key, stream: Stream) -> Key:
    """The key of a purpose below another key, beside whatever is split from that one."""
    return jax.random.fold_in(key, np.uint32(stream))


def generator(seed: int, stream: Stream, *counts: int) -> np.random.Generator:
    """NumPy's generator of a purpose, and of an episode or another count of it (below 2^31).

    Raises:
        ValueError: the seed or a count is negative.
    """
    return np.random.default_rng(_sequence(seed, stream, counts))


def simulator_seed(seed: int, stream: Stream, episode: int) -> int:
    """The seed that a simulator is reset with: a run's episodes do not depend on its past."""
    return int(_sequence(seed, stream, (episode,)).generate_state(1)[0])


def task_generator(seed: int, split: str) -> np.random.Generator:
    """Of the training tasks of a data seed (`train`), or the test task of a run seed (`test`).

    Its seeds are those of the first version: a seed is the same robot in every version, so that
    results of different versions stay paired. Nothing else here is seeded by a list.
    """
    return np.random.default_rng([seed, ("train", "test").index(split)])


def _sequence(seed: int, stream: Stream, counts: tuple[int, ...]) -> np.random.SeedSequence:
    assert all(count < _FIRST for count in counts)
    return np.random.SeedSequence(seed, spawn_key=(int(stream), *counts))
