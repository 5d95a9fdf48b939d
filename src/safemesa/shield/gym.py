"""The shield as Gymnasium wrappers, around any environment and any agent.

The agent sees its own proposals, so it needs no change: it learns as if the shield were part of the
environment, as the task policy of Recovery RL does.
"""

from typing import Any, final

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from safemesa.core.costs import known_cost
from safemesa.core.errors import ConfigurationError
from safemesa.core.streams import Stream, generator
from safemesa.core.wrapped import require_physical_observations
from safemesa.shield.online import OnlineRisk
from safemesa.shield.runtime import Decision, Shield

COST = 'info["cost"], which the online update learns from,'
"""Where a cost comes from, for messages."""


@final
class _Lane:
    """One environment's shield, and the step that waits for its next proposal."""

    def __init__(
        self, shield: Shield, online: OnlineRisk | None, noise: float, rng: np.random.Generator
    ) -> None:
        self.shield, self.online, self.noise, self.rng = shield, online, noise, rng
        self.obs: np.ndarray | None = None
        self.executed: np.ndarray | None = None
        self.waiting: tuple[np.ndarray, np.ndarray, np.ndarray, float, bool] | None = None

    def begin(self, obs: np.ndarray) -> None:
        self.flush(None)
        self.shield.reset()
        self.obs = np.array(obs)

    def act(self, proposed: np.ndarray) -> Decision:
        """Decides; the action that was executed is in the result."""
        if self.obs is None:
            raise gymnasium.error.ResetNeeded("Call reset() before step().")
        perturb = self._explore if self.noise > 0.0 else None
        decision = self.shield.decide(self.obs, proposed, perturb=perturb)
        sound = np.all(np.isfinite(proposed)) and np.shape(proposed) == decision.action.shape
        self.flush(np.asarray(proposed) if sound else None)
        self.executed = decision.action
        return decision

    def _explore(self, recovery: np.ndarray) -> np.ndarray:
        limits = self.shield.settings.actions
        half = 0.5 * (limits.high - limits.low)
        noisy = recovery + self.noise * half * self.rng.normal(size=half.shape)
        return np.clip(noisy, limits.low, limits.high)

    def observe(self, next_obs: np.ndarray, cost: float, terminated: bool, ended: bool) -> None:
        """What the executed action led to."""
        if self.online is not None:
            assert self.obs is not None
            assert self.executed is not None
            self.waiting = (self.obs, self.executed, np.array(next_obs), cost, terminated)
            if ended:
                self.flush(None)
        self.obs = np.array(next_obs)

    def flush(self, next_proposed: np.ndarray | None) -> None:
        """Hands the waiting step on, now that its next proposal is known, or never will be."""
        if self.waiting is not None and self.online is not None:
            self.online.add(*self.waiting, next_proposed)
            self.waiting = None


def _check_environment(
    shield: Shield, env: Any, obs_space: gymnasium.Space, action_space: gymnasium.Space
) -> None:
    """Refuses an environment that this shield was not made for.

    Raises:
        ConfigurationError: sizes or action limits differ, or observations are normalised.
    """
    require_physical_observations(env, "the shield")
    observations, actions = shield.settings.observations, shield.settings.actions
    for kind, space, names in (
        ("observations", obs_space, observations.names),
        ("actions", action_space, actions.names),
    ):
        if not isinstance(space, gymnasium.spaces.Box) or space.shape != (len(names),):
            raise ConfigurationError(
                f"the environment's {kind} are {space}; the shield needs a Box of {len(names)} "
                f"numbers: {', '.join(names)}."
            )
    assert isinstance(action_space, gymnasium.spaces.Box)
    given = np.stack([action_space.low, action_space.high])
    wanted = np.stack([actions.low, actions.high])
    if not np.allclose(given, wanted, rtol=1e-5, atol=1e-6):
        raise ConfigurationError(
            f"the environment's actions go from {given[0].tolist()} to {given[1].tolist()}, the "
            f"shield's from {wanted[0].tolist()} to {wanted[1].tolist()}. Put the wrapper inside "
            "any that rescales actions, or export the shield for this environment."
        )


def _noise(online: OnlineRisk | None, given: float | None) -> float:
    if given is None:
        return 0.0 if online is None else online.noise
    if not given >= 0.0:
        raise ConfigurationError(f"recovery_noise is {given}; expected at least 0.")
    return given


def _check_online(shield: Shield, online: OnlineRisk | None) -> None:
    """Refuses a risk model that is not the shield's: its weights mean something else there."""
    if online is None or shield.model is None:
        return
    settings = shield.settings
    same = (
        online.spaces.obs_names == settings.observations.names
        and online.spaces.action_names == settings.actions.names
        and np.allclose(online.normaliser.mean, settings.mean, rtol=1e-5)
        and np.allclose(online.normaliser.std, settings.std, rtol=1e-5)
    )
    if not same:
        raise ConfigurationError(
            "the risk model of `online` is not the one that this shield was exported from: signals "
            "or normalisation differ. Give the folder that `safemesa adapt` wrote for it."
        )
    if online.adapts_again and shield.dynamics is None:
        raise ConfigurationError(
            "this shield has no dynamics monitor, so no alarm could lead to adapting again. Export "
            "it from a prior of `safemesa meta-train --monitor.enabled`, or leave adapt_again out."
        )


def _five(result: Any) -> Any:
    """What `step` of Gymnasium gives; that of Safety-Gymnasium has six values."""
    if len(result) == 5:
        return result
    raise ConfigurationError(
        f"the environment's step gives {len(result)} values, expected 5. For Safety-Gymnasium's "
        "six, wrap it in safety_gymnasium.wrappers.SafetyGymnasium2Gymnasium first."
    )


@final
class ShieldWrapper(gymnasium.Wrapper[np.ndarray, np.ndarray, np.ndarray, np.ndarray]):
    """Shields one environment.

    Beside the environment's own, `info` of each step carries `shield_risk` of the proposal,
    `shield_overridden`, `shield_reason`, and `shield_action`, which was executed. Of several
    wrappers around one shield the first uses it, and each other one a fork: `self.shield`.
    """

    def __init__(
        self,
        env: gymnasium.Env[np.ndarray, np.ndarray],
        shield: Shield,
        *,
        online: OnlineRisk | None = None,
        recovery_noise: float | None = None,
        seed: int = 0,
    ) -> None:
        """Wraps.

        Args:
            env: with Box observations and actions, in the units and order of the shield.
            shield: exported for this robot, in the mode that is wanted; `set_mode` changes it for
                all wrappers around it.
            online: goes on learning risk while the agent trains; needs `info["cost"]`.
            recovery_noise: exploration noise on recovery actions, in half-widths of the action
                space; default: that of the risk model where `online` learns, otherwise none.
            seed: of that noise.

        Raises:
            ConfigurationError: the shield was made for other signals.
        """
        super().__init__(env)
        _check_environment(shield, env, env.observation_space, env.action_space)
        _check_online(shield, online)
        self.shield, self.online = shield.claim(), online
        noise = _noise(online, recovery_noise)
        self._lane = _Lane(self.shield, online, noise, generator(seed, Stream.SHIELD_NOISE))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode; the shield forgets the last one."""
        obs, info = self.env.reset(seed=seed, options=options)
        self._lane.begin(obs)
        return obs, info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        """Executes what the shield decides."""
        decision = self._lane.act(action)
        executed = decision.action.astype(self.env.action_space.dtype)
        obs, reward, terminated, truncated, info = _five(self.env.step(executed))
        if self.online is not None:
            cost = known_cost(info.get("cost"), COST)
            self._lane.observe(obs, cost, bool(terminated), bool(terminated or truncated))
            weights = self.online.learn()
            if weights is not None:
                self.shield.replace_weights(weights, risk_limit=self.online.limit)
            self.online.adapt_again(self.shield)
        else:
            self._lane.observe(obs, 0.0, False, False)
        told = {
            "shield_risk": decision.risk,
            "shield_overridden": decision.overridden,
            "shield_reason": str(decision.reason),
            "shield_action": executed,
        }
        return obs, reward, terminated, truncated, {**info, **told}


@final
class VectorShieldWrapper(gymnasium.vector.VectorWrapper):
    """Shields all sub-environments: one model and mode, a memory of its own for each of them.

    `info` carries the arrays of `ShieldWrapper` with Gymnasium's masks (`_shield_risk` and so on),
    false where a step only reset its sub-environment. All three autoreset modes are understood, and
    no transition crosses a reset. One online update is made per step of a sub-environment.
    """

    def __init__(
        self,
        env: gymnasium.vector.VectorEnv,
        shield: Shield,
        *,
        online: OnlineRisk | None = None,
        recovery_noise: float | None = None,
        seed: int = 0,
    ) -> None:
        """Wraps; see `ShieldWrapper`."""
        super().__init__(env)
        spaces = env.single_observation_space, env.single_action_space
        _check_environment(shield, env, *spaces)
        _check_online(shield, online)
        if online is not None and online.adapts_again:
            raise ConfigurationError(
                "adapting again is for one robot, and a vector environment has several. Leave "
                "adapt_again out, or take ShieldWrapper."
            )
        self.shield, self.online = shield, online
        noise, rng = _noise(online, recovery_noise), generator(seed, Stream.SHIELD_NOISE)
        self._lanes = [_Lane(shield.fork(), online, noise, rng) for _ in range(env.num_envs)]
        self._autoreset = env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        self._resets = np.zeros(env.num_envs, bool)

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts episodes: all of them, or those of `options["reset_mask"]`."""
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        mask = np.array(mask, bool)
        obs, info = self.env.reset(seed=seed, options=options)
        for index in np.flatnonzero(mask):
            self._lanes[index].begin(obs[index])
        self._resets = np.where(mask, False, self._resets)
        return obs, info

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Executes what the shields decide, except where a step only resets."""
        live = ~self._resets
        executed = np.array(actions, self.single_action_space.dtype)
        decisions: dict[int, Decision] = {}
        for index in map(int, np.flatnonzero(live)):
            decisions[index] = self._lanes[index].act(actions[index])
            executed[index] = decisions[index].action
        obs, reward, terminated, truncated, info = _five(self.env.step(executed))
        ended = terminated | truncated
        same_step = self._autoreset == AutoresetMode.SAME_STEP
        for index, lane in enumerate(self._lanes):
            if not live[index]:
                lane.begin(obs[index])
                continue
            restarted = same_step and ended[index]
            last = info["final_obs"][index] if restarted else obs[index]
            cost = 0.0
            if self.online is not None:
                source = info.get("final_info", {}) if restarted else info
                costs = source.get("cost")
                cost = known_cost(None if costs is None else costs[index], COST)
            lane.observe(last, cost, bool(terminated[index]), bool(ended[index]))
            if restarted:
                lane.begin(obs[index])
            self._learn()
        if self._autoreset == AutoresetMode.NEXT_STEP:
            self._resets = np.array(ended, bool)
        return obs, reward, terminated, truncated, {**info, **self._told(decisions, executed)}

    def statistics(self) -> list[dict[str, Any]]:
        """Of each sub-environment: what its shield did."""
        return [lane.shield.statistics() for lane in self._lanes]

    def _learn(self) -> None:
        weights = None if self.online is None else self.online.learn()
        if weights is not None and self.online is not None:
            self.shield.replace_weights(weights, risk_limit=self.online.limit)

    def _told(self, decisions: dict[int, Decision], executed: np.ndarray) -> dict[str, Any]:
        count = self.num_envs
        risk, overridden = np.full(count, np.nan), np.zeros(count, bool)
        reason, mask = np.full(count, "", object), np.zeros(count, bool)
        for index, decision in decisions.items():
            mask[index], risk[index] = True, decision.risk
            overridden[index], reason[index] = decision.overridden, str(decision.reason)
        told = {
            "shield_risk": risk,
            "shield_overridden": overridden,
            "shield_reason": reason,
            "shield_action": executed,
        }
        return told | {f"_{name}": mask.copy() for name in told}
