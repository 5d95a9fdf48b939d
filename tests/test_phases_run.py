"""Whole runs: what they leave, that they repeat, resume and refuse."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import episodes_of, tiny_config

import safemesa
from safemesa.core.errors import (
    CheckpointError,
    ConfigurationError,
    DatasetError,
    OutputFolderError,
    SafemesaError,
)
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.domains.registry import domain as find_domain
from safemesa.phases.adapt import adapt
from safemesa.phases.collection.logs import FewViolationsWarning, collect_train_logs
from safemesa.phases.config import RunConfig, config_from_json, config_to_json
from safemesa.phases.deployment.deploy_state import Chunk
from safemesa.phases.deployment.run_recorder import Recorder
from safemesa.phases.loop import ChunkLoop
from safemesa.phases.meta_train import meta_train
from safemesa.phases.run import RunOptions, run
from safemesa.phases.storage.artefacts import load_prior, load_risk_model
from safemesa.phases.storage.checkpoint import Checkpointer
from safemesa.phases.storage.run_folder import METRIC_FIELDS, JsonLines, provenance

SUMMARY_FIELDS = {
    "arm",
    "domain",
    "preset",
    "seed",
    "episodes",
    "env_steps",
    "violations",
    "violations_under_recovery",
    "successes",
    "return_mean",
    "return_last_100",
    "interventions",
    "wall_s",
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "mesa"
    run([tiny_config()], [folder], RunOptions(data_dir=data_dir))
    return folder


def test_a_run_leaves_what_the_design_says(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert set(summary) == SUMMARY_FIELDS
    assert set(summary["wall_s"]) == {"collect", "meta_train", "adapt", "deploy"}
    assert all(tuple(line) == METRIC_FIELDS for line in lines)
    assert [line["episode"] for line in lines] == list(range(6))
    assert summary["episodes"] == 6
    assert summary["violations"] == sum(line["violation"] for line in lines)
    assert lines[-1]["cumulative_violations"] == summary["violations"]
    assert lines[-1]["env_steps"] == sum(line["length"] for line in lines) == summary["env_steps"]
    assert summary["return_mean"] == pytest.approx(np.mean([line["return"] for line in lines]))
    config = json.loads((finished / "config.json").read_text())
    assert config_from_json(RunConfig, config["config"]) == tiny_config()
    assert config["versions"]["jax"] == jax.__version__
    load_prior(finished / "artefacts" / "prior")
    load_risk_model(finished / "artefacts" / "risk_model")
    load_risk_model(finished / "artefacts" / "deployed_risk_model")


def test_replay_agrees_with_metrics(finished: Path) -> None:
    layout = json.loads((finished / "replay" / "layout.json").read_text())
    width = sum(1 if size is None else size for _, size in layout["fields"])
    rows = np.fromfile(finished / "replay" / "rows.f32", np.float32).reshape(-1, width)
    lines = episodes_of(finished)
    assert len(rows) == lines[-1]["env_steps"]
    starts = [name for name, _ in layout["fields"]]
    offset = sum(1 if s is None else s for _, s in layout["fields"][: starts.index("reward")])
    ends = np.cumsum([line["length"] for line in lines])[:-1]
    returns = [part[:, offset].sum() for part in np.split(rows, ends)]
    np.testing.assert_allclose(returns, [line["return"] for line in lines], rtol=1e-4)


def test_the_same_seed_gives_the_same_run(finished: Path, tmp_path: Path, data_dir: Path) -> None:
    run([tiny_config()], [tmp_path / "again"], RunOptions(data_dir=data_dir))
    assert episodes_of(tmp_path / "again") == episodes_of(finished)


def test_another_seed_gives_another_run(finished: Path, tmp_path: Path, data_dir: Path) -> None:
    run([tiny_config(seed=8)], [tmp_path / "other"], RunOptions(data_dir=data_dir))
    assert episodes_of(tmp_path / "other") != episodes_of(finished)


class InterruptError(Exception):
    """Stands for a process that dies."""


@pytest.mark.parametrize("at", [1, 2, 3, 5, 8])
def test_a_run_that_dies_at_any_checkpoint_resumes_exactly(
    at: int,
    finished: Path,
    tmp_path: Path,
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dies right before, and another time right after, the n-th checkpoint of a phase."""
    save, count = Checkpointer.save, [0]

    def dying(self, step, state, notes):
        count[0] += 1
        if count[0] == at:
            raise InterruptError
        save(self, step, state, notes)
        if count[0] == at + 1:
            raise InterruptError

    folder = tmp_path / "run"
    monkeypatch.setattr(Checkpointer, "save", dying)
    for _ in range(2):
        with pytest.raises(InterruptError):
            run([tiny_config()], [folder], RunOptions(data_dir=data_dir))
        if count[0] > at:
            break
    monkeypatch.setattr(Checkpointer, "save", save)
    run([tiny_config()], [folder], RunOptions(data_dir=data_dir))
    assert episodes_of(folder) == episodes_of(finished)
    one, two = folder / "replay" / "rows.f32", finished / "replay" / "rows.f32"
    assert one.read_bytes() == two.read_bytes()


def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    finished: Path, tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, save = tmp_path / "run", Checkpointer.save

    def dying(self, step, state, notes):
        save(self, step, state, notes)
        if self.phase == "deploy" and step > 200:
            raise InterruptError

    monkeypatch.setattr(Checkpointer, "save", dying)
    with pytest.raises(InterruptError):
        run([tiny_config()], [folder], RunOptions(data_dir=data_dir))
    monkeypatch.setattr(Checkpointer, "save", save)
    newest = max((folder / "checkpoints").glob("deploy-*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-40])
    run([tiny_config()], [folder], RunOptions(data_dir=data_dir))
    assert episodes_of(folder) == episodes_of(finished)


def test_when_all_checkpoints_are_damaged_it_says_so(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, save = tmp_path / "run", Checkpointer.save

    def dying(self, step, state, notes):
        save(self, step, state, notes)
        if self.phase == "deploy":
            raise InterruptError

    monkeypatch.setattr(Checkpointer, "save", dying)
    with pytest.raises(InterruptError):
        run([tiny_config()], [folder], RunOptions(data_dir=data_dir))
    monkeypatch.setattr(Checkpointer, "save", save)
    for path in (folder / "checkpoints").glob("deploy-*.safetensors"):
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="no sound checkpoint"):
        run([tiny_config()], [folder], RunOptions(data_dir=data_dir))


def test_a_finished_run_is_left_alone(finished: Path, data_dir: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    run([tiny_config()], [finished], RunOptions(data_dir=data_dir))
    after = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    changed = {path for path in after if before.get(path) != after[path]}
    assert {path.name for path in changed} <= {".lock"}


def test_a_folder_of_another_configuration_is_refused(finished: Path, data_dir: Path) -> None:
    config = tiny_config()
    limit = replace(config.guard_settings, risk_limit=0.5)
    other = replace(config, guard_settings=limit)
    before = (finished / "config.json").read_text()
    with pytest.raises(OutputFolderError, match=r"risk_limit is 0\.1 there and 0\.5 here"):
        run([other], [finished], RunOptions(data_dir=data_dir))
    assert (finished / "config.json").read_text() == before


def test_a_folder_with_something_else_is_refused(tmp_path: Path, data_dir: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(OutputFolderError, match="not empty"):
        run([tiny_config()], [tmp_path], RunOptions(data_dir=data_dir))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"guard": "gard"}, ConfigurationError),
        ({"meta_learner": "mamle"}, ConfigurationError),
        ({"domain": "navigation9"}, ConfigurationError),
    ],
)
def test_unknown_names_leave_no_folder(
    change: dict, error: type[SafemesaError], tmp_path: Path, data_dir: Path
) -> None:
    with pytest.raises(error, match="Known"):
        run([replace(tiny_config(), **change)], [tmp_path / "x"], RunOptions(data_dir=data_dir))
    assert not (tmp_path / "x").exists()


def test_training_logs_of_other_sizes_are_refused(tmp_path: Path, data_dir: Path) -> None:
    config = replace(tiny_config(), data=replace(tiny_config().data, train_tasks=5))
    with pytest.raises(DatasetError, match="wants 5 of 300"):
        run([config], [tmp_path / "run"], RunOptions(data_dir=data_dir))


def test_training_logs_of_other_robots_are_refused(tmp_path: Path, data_dir: Path) -> None:
    """Sizes and spaces may be equal: the tasks tell them apart."""
    run([tiny_config()], [tmp_path / "first"], RunOptions(data_dir=data_dir))
    (kept,) = [path for path in data_dir.iterdir() if path.name.startswith("navigation2-")]
    other = tmp_path / "data" / f"{kept.name[:-1]}1"
    shutil.copytree(kept, other)
    options = RunOptions(data_dir=tmp_path / "data")
    with pytest.raises(DatasetError, match="logs of other robots"):
        run([replace(tiny_config(), data_seed=1)], [tmp_path / "second"], options)


def test_damaged_training_logs_are_refused(tmp_path: Path, data_dir: Path, finished: Path) -> None:
    del finished
    copy = tmp_path / "data"
    shutil.copytree(data_dir, copy)
    victim = next(copy.rglob("train-0002*.safetensors"))
    content = bytearray(victim.read_bytes())
    content[-5] ^= 0xFF
    victim.write_bytes(bytes(content))
    with pytest.raises(DatasetError, match="train-0002"):
        run([tiny_config()], [tmp_path / "run"], RunOptions(data_dir=copy))


def test_a_test_log_without_accidents_warns(tmp_path: Path, data_dir: Path) -> None:
    config = tiny_config("rrl")
    config = replace(config, data=replace(config.data, test_transitions=4))
    with pytest.warns(FewViolationsWarning, match="violations in 4 transitions"):
        run([config], [tmp_path / "run"], RunOptions(data_dir=data_dir))


@pytest.mark.parametrize("arm", ["multitask", "mesa_as_printed", "mesa_metasgd", "rrl"])
def test_every_arm_runs(arm: str, tmp_path: Path, data_dir: Path) -> None:
    (summary,) = run([tiny_config(arm)], [tmp_path / arm], RunOptions(data_dir=data_dir))
    assert summary["arm"] == arm
    assert summary["episodes"] == 6


def test_the_unconstrained_arm_never_intervenes(tmp_path: Path, data_dir: Path) -> None:
    (summary,) = run(
        [tiny_config("unconstrained")], [tmp_path / "u"], RunOptions(data_dir=data_dir)
    )
    assert summary["interventions"] == summary["violations_under_recovery"] == 0
    assert not (tmp_path / "u" / "artefacts" / "prior").exists()


def test_arms_are_paired_by_seed(finished: Path, tmp_path: Path, data_dir: Path) -> None:
    """Same test task, same log, same initial networks."""
    run([tiny_config("multitask")], [tmp_path / "mt"], RunOptions(data_dir=data_dir))
    one = json.loads((finished / "artefacts/test_log/manifest.json").read_text())["tasks"]
    two = json.loads((tmp_path / "mt/artefacts/test_log/manifest.json").read_text())["tasks"]
    assert one == two
    from safemesa.domains.registry import domain
    from safemesa.phases.storage.artefacts import prior_template

    spaces = domain("navigation2").spaces
    mesa = prior_template(tiny_config("mesa"), spaces)
    multitask = prior_template(tiny_config("multitask"), spaces)
    equal = jax.tree.map(lambda a, b: bool((a == b).all()), mesa.model, multitask.model)
    assert all(jax.tree.leaves(equal))


def test_several_seeds_in_one_process(finished: Path, tmp_path: Path, data_dir: Path) -> None:
    """`vmap`ped seeds do what single runs do, up to rounding in the first steps."""
    configs = [tiny_config(seed=7), tiny_config(seed=8)]
    folders = [tmp_path / "seed-7", tmp_path / "seed-8"]
    summaries = run(configs, folders, RunOptions(data_dir=data_dir))
    assert [summary["seed"] for summary in summaries] == [7, 8]
    assert all(summary["episodes"] == 6 for summary in summaries)
    single, _, _ = load_prior(finished / "artefacts" / "prior")
    together, _, _ = load_prior(folders[0] / "artefacts" / "prior")
    for a, b in zip(jax.tree.leaves(single), jax.tree.leaves(together), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)
    first, both = episodes_of(finished)[0], episodes_of(folders[0])[0]
    assert first["length"] == both["length"]
    assert first["return"] == pytest.approx(both["return"], rel=1e-3)


def test_several_seeds_resume_exactly(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [tiny_config(seed=7), tiny_config(seed=8)]
    straight = [tmp_path / "a7", tmp_path / "a8"]
    run(configs, straight, RunOptions(data_dir=data_dir))
    save, count = Checkpointer.save, [0]

    def dying(self, step, state, notes):
        save(self, step, state, notes)
        count[0] += self.phase == "deploy"
        if count[0] == 5:  # an odd number: only one of the two seeds has saved this step
            raise InterruptError

    broken = [tmp_path / "b7", tmp_path / "b8"]
    monkeypatch.setattr(Checkpointer, "save", dying)
    with pytest.raises(InterruptError):
        run(configs, broken, RunOptions(data_dir=data_dir))
    monkeypatch.setattr(Checkpointer, "save", save)
    run(configs, broken, RunOptions(data_dir=data_dir))
    for one, two in zip(straight, broken, strict=True):
        assert episodes_of(one) == episodes_of(two)


class Killed:
    """Ends a run by its recorder: at `before` a save, or after the one of `after`, of any seed."""

    def __init__(self, before=lambda seed, step: False, after=lambda seed, step: False) -> None:
        self.before, self.after = before, after

    def of(self, patch: pytest.MonkeyPatch, arguments: tuple) -> None:
        record = Recorder.record

        def dying(recorder: Recorder, chunk: Chunk) -> None:
            where = recorder.config.seed, int(chunk.state.step)
            if self.before(*where):
                raise InterruptError
            record(recorder, chunk)
            if self.after(*where):
                raise InterruptError

        with patch.context() as inner:
            inner.setattr(Recorder, "record", dying)
            with pytest.raises(InterruptError):
                run(*arguments)


def unconstrained(seed: int) -> RunConfig:
    config = tiny_config("unconstrained", seed=seed)
    return replace(config, deploy=replace(config.deploy, episodes=8))


@pytest.fixture(scope="module")
def side_by_side(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> list[Path]:
    folders = [tmp_path_factory.mktemp("straight") / name for name in "78"]
    run([unconstrained(7), unconstrained(8)], folders, RunOptions(data_dir=data_dir))
    return folders


def test_seeds_that_are_killed_twice_resume_exactly(
    tmp_path: Path, data_dir: Path, side_by_side: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A seed that went back to the step of the others must forget what it had saved later."""
    folders = [tmp_path / "7", tmp_path / "8"]
    arguments = [unconstrained(7), unconstrained(8)], folders, RunOptions(data_dir=data_dir)
    Killed(before=lambda seed, step: seed == 8 and step > 120).of(monkeypatch, arguments)
    Killed(before=lambda seed, step: True).of(monkeypatch, arguments)
    run(*arguments)
    for one, two in zip(side_by_side, folders, strict=True):
        assert episodes_of(one) == episodes_of(two)


def test_seeds_that_began_apart_go_back_to_a_step_that_both_have(
    tmp_path: Path, data_dir: Path, side_by_side: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them would else begin anew beside the other, and learn before its replay is filled."""
    options, folders = RunOptions(data_dir=data_dir), [tmp_path / "7", tmp_path / "8"]
    for seed, folder, last in ((7, folders[0], 300), (8, folders[1], 100)):
        arguments = [unconstrained(seed)], [folder], options
        Killed(after=lambda seed, step, last=last: step >= last).of(monkeypatch, arguments)
    run([unconstrained(7), unconstrained(8)], folders, options)
    for one, two in zip(side_by_side, folders, strict=True):
        assert episodes_of(one) == episodes_of(two)


def test_a_folder_from_before_a_setting_has_its_default(finished: Path, data_dir: Path) -> None:
    file = finished / "config.json"
    text = file.read_text()
    record = json.loads(text)
    del record["config"]["deploy"]["learn_risk"]
    file.write_text(json.dumps(record))
    try:
        run([tiny_config()], [finished], RunOptions(data_dir=data_dir))
        with pytest.raises(OutputFolderError, match="another configuration"):
            run([tiny_config(seed=8)], [finished], RunOptions(data_dir=data_dir))
        file.write_text("{}")
        with pytest.raises(OutputFolderError, match="config is None there"):
            run([tiny_config()], [finished], RunOptions(data_dir=data_dir))
    finally:
        file.write_text(text)


def test_numbers_that_are_not_finite_are_an_error_that_names_them(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "learning.jsonl")
    size = lines.append([{"env_steps": 1, "loss": 0.5}])
    with pytest.raises(SafemesaError, match=r"step 2: loss is nan\. Learning has diverged"):
        lines.append([{"env_steps": 2, "loss": 0.5}, {"env_steps": 2, "loss": float("nan")}])
    assert lines.path.stat().st_size == size


def test_a_recovery_policy_of_the_new_robots_log_needs_one(data_dir: Path) -> None:
    config = tiny_config("mesa_as_printed")
    train = collect_train_logs(find_domain("navigation2"), config, data_dir / "unused")
    with pytest.raises(ConfigurationError, match="no log of the new robot"):
        meta_train([config], train)


def test_only_what_is_split_needs_two_episodes(data_dir: Path) -> None:
    config = tiny_config("multitask")
    train = collect_train_logs(find_domain("navigation2"), config, data_dir / "unused")
    columns = dict(train.train[1].columns)
    columns["episode"] = np.zeros_like(columns["episode"])
    data = replace(train, train=(train.train[0], replace(train.train[1], columns=columns)))
    meta_train([config], data)
    with pytest.raises(DatasetError, match=r"task 'train-001': a log has 1 episodes"):
        meta_train([tiny_config()], data)


def test_config_round_trip_and_refusals() -> None:
    config = tiny_config()
    values = json.loads(json.dumps(config_to_json(config)))
    assert config_from_json(RunConfig, values) == config
    with pytest.raises(ConfigurationError, match="unknown fields"):
        config_from_json(RunConfig, values | {"extra": 1})
    values["risk"]["gamma_risk"] = "high"
    with pytest.raises(ConfigurationError, match=r"config\.risk\.gamma_risk"):
        config_from_json(RunConfig, values)


def test_a_run_knows_the_commit_that_made_it() -> None:
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        pytest.skip("not a clone")
    head = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    # Between Python and the clone there may be an installed copy, which knows no commit.
    if Path(safemesa.__file__).is_relative_to(root):
        assert str(provenance()["git_commit"]).startswith(head.stdout.strip())


def test_the_commit_is_that_of_a_clone_that_holds_the_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("src/safemesa", ".venv/lib/python3.12/site-packages/safemesa"):
        (tmp_path / folder).mkdir(parents=True)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run([*git, *words], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)

    def commit(package: Path) -> str | None:
        monkeypatch.setattr(safemesa, "__file__", str(package / "__init__.py"))
        return provenance()["git_commit"]

    assert commit(tmp_path / "src" / "safemesa") == head.stdout.strip()
    (tmp_path / "src" / "changed").touch()
    assert commit(tmp_path / "src" / "safemesa") == head.stdout.strip() + "+changes"
    assert commit(tmp_path / ".venv/lib/python3.12/site-packages/safemesa") is None


def test_no_steps_of_adam_report_no_loss(finished: Path) -> None:
    prior, config, _ = load_prior(finished / "artefacts" / "prior")
    test_log = OfflineTasks.load(finished / "artefacts" / "test_log")
    told: dict[int, dict[str, float]] = {}
    loop = ChunkLoop("adapt", on_metrics=lambda seed, step, metrics: told.update({step: metrics}))
    assert config.meta.inner_steps == 1
    adapt([config], [prior], [test_log], loop, steps=1)
    adapt([config], [prior], [test_log], loop, steps=2)
    assert told[1] == {}
    assert told[2]["critic_loss"] > 0.0


def test_each_function_compiles_once(
    tmp_path: Path, data_dir: Path, finished: Path, compile_counter
) -> None:
    """A full run traces and compiles its phases once (Phase 3 twice: before and after updates)."""
    del finished
    jax.clear_caches()
    with compile_counter() as counts:
        run([tiny_config()], [tmp_path / "counted"], RunOptions(data_dir=data_dir))
    mine = {name: counts[name] for name in counts if name.startswith("_run")}
    assert mine == {"_run_meta_train": 1, "_run_inner_step": 1, "_run_adapt": 1, "_run_deploy": 2}
