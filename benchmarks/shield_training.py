"""Training Stable-Baselines3 and SBX agents with and without a shield, on paired seeds.

    python -m benchmarks.shield_training all --preset cpu --seeds 0-2 --out results/shield
    python -m benchmarks.shield_training table results/shield/training.jsonl

`all` learns a prior per seed from logs of other robots, adapts it to a small log of this one,
exports the shield, trains every agent in a process of its own with and without it, and appends one
line for each; given again, it goes on with what is missing. `prepare` and `train` do one step of
it. Arms of a seed share the task and the agent's seed. Needs the extra `bench`, and `mujoco` for
cartpole.

Arms: no shield (`none`), one that stays as it is (`fixed`), one that goes on learning risk and
bootstraps with the agent's proposals as they were made (`online`) or asks the agent afresh
(`asking`). `--settings held_out` takes the settings of risk that tasks of no table chose,
`--settings safemesa` the arm of that name.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from safemesa.cli.grid import parse_seeds
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.domains.registry import domain as find_domain
from safemesa.experiments.arms import configure
from safemesa.phases import api
from safemesa.phases.collection.logs import load_or_collect_train
from safemesa.phases.collection.tasks import sample_test_task
from safemesa.phases.config import RunConfig
from safemesa.phases.progress import BarProgress
from safemesa.phases.storage.artefacts import save_artefact
from safemesa.phases.storage.run_folder import provenance
from safemesa.shield.export import ShieldOptions, export_shield, find_source
from safemesa.shield.gym import ShieldWrapper
from safemesa.shield.online import OnlineRisk
from safemesa.shield.runtime import Shield

AGENTS = ("sb3_sac", "sb3_ppo", "sbx_sac")
ARMS = ("none", "fixed", "online", "asking")
STEPS = {"navigation1": 10_000, "navigation2": 10_000, "cartpole": 10_000}
DOMAINS = tuple(STEPS)
PRESETS = ("paper", "cpu", "quick")
HELD_OUT = {"cartpole": {"gamma_risk": 0.95, "risk_limit": 0.5, "recovery_noise": 0.0}}
"""What tasks that are in no table chose (results/tuning/cartpole_limit), with Multi-Task's prior.
With MESA's, which the shields here have, they were no better there."""
SETTINGS = ("printed", "held_out", "safemesa")


def configuration(domain: str, preset: str, seed: int, settings: str = "printed") -> RunConfig:
    """MESA's, with settings of the paper or of held-out tasks; or safemesa's."""
    arm = "safemesa" if settings == "safemesa" else "mesa"
    config = replace(configure(arm, domain, preset), seed=seed)
    if settings in ("printed", "safemesa"):
        return config
    if domain not in HELD_OUT:
        sys.exit(f"Held-out tasks chose no settings for {domain}; only for {', '.join(HELD_OUT)}.")
    chosen = HELD_OUT[domain]
    limit, noise = chosen["risk_limit"], chosen["recovery_noise"]
    guard = replace(config.guard_settings, risk_limit=limit, recovery_noise=noise)
    risk = replace(config.risk, gamma_risk=chosen["gamma_risk"])
    return replace(config, risk=risk, guard_settings=guard)


def prepared_folder(shields: Path, domain: str, seed: int, settings: str) -> Path:
    """Where `prepare` puts the risk model, the log and the shield."""
    name = f"{domain}-{seed}"
    return shields / (name if settings == "printed" else f"{name}-{settings}")


def test_task(config: RunConfig) -> Any:
    """The new robot of a seed."""
    return sample_test_task(find_domain(config.domain), config.seed)


def prepare(flags: argparse.Namespace) -> None:
    """Phases 1 and 2, and the export."""
    config = configuration(flags.domain, flags.preset, flags.seed, flags.settings)
    folder = prepared_folder(flags.out, flags.domain, flags.seed, flags.settings)
    domain = find_domain(config.domain)
    train = load_or_collect_train(domain, config, flags.data_dir, BarProgress())
    new = api.collect_test(config)
    model = api.adapt(config, api.meta_train(config, train, new), new)
    save_artefact(folder / "risk", model, config, new.spaces, {"log": new.log_facts()})
    new.save(folder / "log")
    manifest = export_shield(find_source(folder / "risk"), folder / "shield", ShieldOptions())
    print(f"{folder}: {manifest['log']['violations']} violations in the new log")


class Tally(gymnasium.Wrapper):
    """Counts what happened, outside the shield and inside the agent's own wrappers."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.returns: list[float] = []
        self.violations = self.successes = self.overridden = self.under_recovery = 0
        self.steps = 0
        self._return = 0.0

    def reset(self, **keywords: Any) -> Any:
        self._return = 0.0
        return self.env.reset(**keywords)

    def step(self, action: np.ndarray) -> Any:
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._return += float(reward)
        self.steps += 1
        violated, overridden = info["cost"] > 0.5, bool(info.get("shield_overridden", False))
        self.violations += violated
        self.overridden += overridden
        self.under_recovery += violated and overridden
        if terminated or truncated:
            self.returns.append(self._return)
            self.successes += bool(info["success"])
        return obs, reward, terminated, truncated, info


def make_agent(name: str, env: gymnasium.Env, seed: int, hidden: int) -> Any:
    """Library defaults, but for SAC's temperature and first steps, which are this project's."""
    policy: dict[str, Any] = {"net_arch": [hidden, hidden]}
    common: dict[str, Any] = {"seed": seed, "policy_kwargs": policy}
    sac: dict[str, Any] = {"ent_coef": 0.2, "learning_starts": 100, "batch_size": 256}
    if name == "sbx_sac":
        from sbx import SAC

        return SAC("MlpPolicy", env, **common, **sac)
    from stable_baselines3 import PPO, SAC

    if name == "sb3_ppo":
        return PPO("MlpPolicy", env, device="cpu", n_steps=512, **common)
    return SAC("MlpPolicy", env, device="cpu", **common, **sac)


def train(flags: argparse.Namespace) -> None:
    """One agent, one arm, one seed; appends one line."""
    folder = prepared_folder(flags.shields, flags.domain, flags.seed, flags.settings)
    artefact = find_source(folder / "risk")
    config = artefact.config
    domain = find_domain(flags.domain)
    env = gymnasium.make(domain.gym_id, task=test_task(config))
    env = gymnasium.wrappers.RecordEpisodeStatistics(env)
    online = None
    if flags.shield != "none":
        shield = Shield.load(folder / "shield", mode="enforce")
        if flags.shield in ("online", "asking"):
            log = OfflineTasks.load(folder / "log")
            online = OnlineRisk.load(folder / "risk", log=log, seed=flags.seed)
        env = ShieldWrapper(
            env,
            shield,
            online=online,
            recovery_noise=config.guard_settings.recovery_noise,
            seed=flags.seed,
        )
    tally = Tally(env)
    agent = make_agent(flags.agent, tally, flags.seed, flags.hidden)
    if online is not None and flags.shield == "asking":
        online.policy = lambda obs: agent.predict(obs)[0]
    began = time.perf_counter()
    agent.learn(flags.steps)
    returns = tally.returns
    record = {
        "agent": flags.agent,
        "domain": flags.domain,
        "seed": flags.seed,
        "shield": flags.shield,
        "steps": flags.steps,
        # PPO finishes its last batch of experience.
        "steps_taken": tally.steps,
        "episodes": len(returns),
        "violations": tally.violations,
        "violations_under_recovery": tally.under_recovery,
        "successes": tally.successes,
        "overridden_share": tally.overridden / tally.steps,
        "return_mean": float(np.mean(returns)) if returns else None,
        "return_last_10": float(np.mean(returns[-10:])) if returns else None,
        "wall_s": round(time.perf_counter() - began, 1),
        "preset": config.preset,
        "settings": settings_of(flags.shield, flags.settings),
        "hidden": flags.hidden,
        "git_commit": provenance()["git_commit"],
        "command": shlex.join(["python", "-m", "benchmarks.shield_training", *sys.argv[1:]]),
    }
    flags.out.parent.mkdir(parents=True, exist_ok=True)
    with open(flags.out, "a") as file:
        file.write(json.dumps(record) + "\n")
    print(json.dumps(record))


def settings_of(arm: str, settings: str) -> str:
    """What a record says: without a shield there are no settings of one."""
    return "printed" if arm == "none" else settings


def steps_of(agent: str, domain: str) -> int:
    """PPO, which learns from fresh experience alone, gets five times as many."""
    return STEPS[domain] * (5 if agent == "sb3_ppo" else 1)


def run_all(flags: argparse.Namespace) -> None:
    """Every domain, seed, agent and arm that the file of records lacks."""
    records_path = flags.out / "training.jsonl"
    fields = ("agent", "domain", "seed", "shield", "steps", "preset", "settings", "hidden")
    done = {tuple(record[field] for field in fields) for record in read_records(records_path)}
    module = [sys.executable, "-m", "benchmarks.shield_training"]
    for seed in parse_seeds(flags.seeds):
        for domain in flags.domains.split(","):
            common = [domain, "--seed", str(seed)]
            ensure_shield(flags, module, domain, seed)
            for agent in flags.agents.split(","):
                steps = steps_of(agent, domain)
                for arm in flags.arms.split(","):
                    settings = settings_of(arm, flags.settings)
                    one = (agent, domain, seed, arm, steps, flags.preset, settings, flags.hidden)
                    if one in done:
                        continue
                    options = ["--shield", arm, "--steps", str(steps), "--out", str(records_path)]
                    options += ["--shields", str(flags.shields), "--hidden", str(flags.hidden)]
                    options += ["--settings", flags.settings]
                    subprocess.run([*module, "train", agent, *common, *options], check=True)


def ensure_shield(flags: argparse.Namespace, module: list[str], domain: str, seed: int) -> None:
    """Prepares the shield of a domain and seed, or checks that the one there is of the preset."""
    prepared = prepared_folder(flags.shields, domain, seed, flags.settings)
    if not (prepared / "shield").exists():
        options = ["--seed", str(seed), "--preset", flags.preset, "--settings", flags.settings]
        options += ["--out", str(flags.shields), "--data-dir", str(flags.data_dir)]
        subprocess.run([*module, "prepare", domain, *options], check=True)
    elif (found := preset_of(prepared)) != flags.preset:
        sys.exit(
            f"{prepared} was prepared with --preset {found}, and {flags.preset} is asked for. "
            "Choose another --shields."
        )


def preset_of(prepared: Path) -> str:
    """That of the risk model in a folder that `prepare` made."""
    return find_source(prepared / "risk").config.preset


def read_records(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of records; none where there is no file.

    Older records do not name their settings, which are the printed ones.
    """
    if not path.exists():
        return []
    lines = path.read_text().splitlines()
    return [{"settings": "printed"} | json.loads(line) for line in lines]


def table_of(records: Sequence[dict[str, Any]]) -> str:
    """Each agent and arm as a row of Markdown: its counts seed by seed, and its mean return."""
    groups: dict[tuple, list[dict]] = {}
    for record in sorted(records, key=lambda record: record["seed"]):
        arm = ARMS.index(record["shield"]), SETTINGS.index(record["settings"])
        order = AGENTS.index(record["agent"]), *arm
        key = record["domain"], order, record["agent"], record["steps"], record["shield"]
        groups.setdefault(key, []).append(record)
    heads = ["domain", "agent", "steps", "shield", "settings", "episodes", "violations"]
    heads += ["successes", "overridden", "return"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for (name, _, agent, steps, shield), rows in sorted(groups.items()):
        counts = [
            ", ".join(str(row[field]) for row in rows)
            for field in ("episodes", "violations", "successes")
        ]
        overridden = f"{100 * np.mean([row['overridden_share'] for row in rows]):.0f} %"
        mean = f"{np.mean([row['return_mean'] for row in rows]):.0f}"
        settings = "-" if shield == "none" else rows[0]["settings"].replace("_", " ")
        cells = (name, agent, steps, shield, settings, *counts, overridden, mean)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def table(flags: argparse.Namespace) -> None:
    """Prints the table."""
    print(table_of(read_records(flags.records)))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    verbs = parser.add_subparsers(required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--settings", default="printed", choices=SETTINGS)
    one = verbs.add_parser("prepare", parents=[shared])
    one.set_defaults(verb=prepare)
    one.add_argument("domain", choices=DOMAINS)
    one.add_argument("--preset", default="paper", choices=PRESETS)
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--data-dir", type=Path, default=Path("data"))
    one.add_argument("--out", type=Path, default=Path("shields"))
    two = verbs.add_parser("train", parents=[shared])
    two.set_defaults(verb=train)
    two.add_argument("agent", choices=AGENTS)
    two.add_argument("domain", choices=DOMAINS)
    two.add_argument("--seed", type=int, default=0)
    two.add_argument("--shield", default="online", choices=ARMS)
    two.add_argument("--steps", type=int, default=10_000)
    two.add_argument("--hidden", type=int, default=256)
    two.add_argument("--shields", type=Path, default=Path("shields"))
    two.add_argument("--out", type=Path, default=Path("results/shield/training.jsonl"))
    every = verbs.add_parser("all", parents=[shared])
    every.set_defaults(verb=run_all)
    every.add_argument("--agents", default=",".join(AGENTS))
    every.add_argument("--domains", default="navigation2,cartpole")
    every.add_argument("--arms", default="none,online")
    every.add_argument("--seeds", default="0-2")
    every.add_argument("--preset", default="cpu", choices=PRESETS)
    every.add_argument("--hidden", type=int, default=256)
    every.add_argument("--data-dir", type=Path, default=Path("data"))
    every.add_argument("--shields", type=Path, default=Path("shields"))
    every.add_argument("--out", type=Path, default=Path("results/shield"))
    three = verbs.add_parser("table")
    three.set_defaults(verb=table)
    three.add_argument("records", type=Path)
    flags = parser.parse_args(arguments)
    flags.verb(flags)


if __name__ == "__main__":
    main()
