"""The ready shield: small, sound, of this version, and it protects its cart."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks import demo_shield

from safemesa.cli.main import main
from safemesa.core.errors import OutputFolderError
from safemesa.datasets.offline_tasks import OfflineTasks
from safemesa.shield import runtime
from safemesa.shield.demo import MODEL, PRIOR, RISK, SHIELD
from safemesa.shield.demo.cart import (
    NEW,
    NEW_EPISODES,
    SPACES,
    STEPS,
    TEST_SEED,
    WALL,
    demo_logs,
    drive,
    log_of,
)
from safemesa.shield.demo.comparison import copy_shield, counts_of, drive_both
from safemesa.shield.demo.demo_page import EPISODES, write_demo
from safemesa.shield.runtime import Shield, check_folder, not_verified


def test_it_is_small_and_says_nothing_of_the_machine_that_made_it():
    files = [path for path in MODEL.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 300_000
    texts = [path.read_text() for path in files if path.suffix in (".json", ".md")]
    assert len(texts) == 4
    for text in texts:
        assert not re.search(r'[\s"](/\w+){2}', text)


def test_the_copy_is_a_sound_export_with_the_runtime_of_this_version(tmp_path):
    copy_shield(tmp_path / "shield")
    found = check_folder(tmp_path / "shield")
    assert not_verified(found) == ""
    assert found["warnings"] == []
    assert "as exported" in found["checks"]["settings"]
    copied = (tmp_path / "shield" / runtime.RUNTIME).read_bytes()
    assert copied == Path(runtime.__file__).read_bytes()
    with pytest.raises(OutputFolderError):
        copy_shield(tmp_path / "shield")


@pytest.mark.slow
def test_prior_and_risk_model_are_those_of_the_shield():
    import jax.numpy as jnp

    from safemesa.phases.storage.artefacts import load_prior, load_risk_model

    prior, _, spaces = load_prior(PRIOR)
    assert spaces.obs_names == SPACES.obs_names
    assert prior.model.rehearsal is not None
    model, _, _ = load_risk_model(RISK)
    rng = np.random.default_rng(0)
    obs = rng.uniform([0.3, -0.3], [6.0, 1.5], (50, 2)).astype(np.float32)
    action = rng.uniform(-100.0, 100.0, (50, 1)).astype(np.float32)
    ours = Shield.load(SHIELD).risks(obs, action)
    theirs = model.risk(jnp.asarray(obs), jnp.asarray(action / 100.0))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_it_protects_the_cart():
    both = drive_both(Shield.load(SHIELD), NEW, TEST_SEED + 1, 12)
    without, guarded = counts_of(both.without), counts_of(both.guarded)
    assert without.violations >= 10
    assert guarded.violations <= 1
    assert guarded.successes >= 11
    assert 0.2 < guarded.overridden_share < 0.8


@pytest.mark.slow
def test_it_protects_the_cart_in_many_episodes():
    both = drive_both(Shield.load(SHIELD), NEW, TEST_SEED + 2, 300)
    assert counts_of(both.without).violations > 270
    assert counts_of(both.guarded).violations < 9


def test_episodes_are_paired_and_repeatable():
    alone, again, other = drive(NEW, (1, 2)), drive(NEW, (1, 2)), drive(NEW, (1, 3))
    np.testing.assert_array_equal(alone.obs, again.obs)
    assert not np.array_equal(alone.obs[0], other.obs[0])
    guarded = drive(NEW, (1, 2), shield=Shield.load(SHIELD, mode="enforce"))
    np.testing.assert_array_equal(alone.obs[0], guarded.obs[0])
    np.testing.assert_array_equal(alone.proposed[0], guarded.proposed[0])


def test_a_watching_shield_changes_nothing():
    alone = drive(NEW, (1, 2))
    watched = drive(NEW, (1, 2), shield=Shield.load(SHIELD, mode="monitor"))
    np.testing.assert_array_equal(alone.obs, watched.obs)
    assert np.isfinite(watched.risk).all()
    assert np.isnan(alone.risk).all()


def test_logs_hold_what_happened():
    episodes = [drive(NEW, (3, number)) for number in range(6)]
    log = log_of("new", "test", episodes)
    OfflineTasks(domain="demo_cart", spaces=SPACES, train=(), test=log).validate()
    assert log.violations == sum(episode.violated for episode in episodes) > 0
    assert log.episodes == 6
    reached = log.columns["next_obs"][log.columns["cost"] > 0.5, 0]
    assert reached.max() < WALL + 0.02  # the sensor has noise
    assert max(len(episode.executed) for episode in episodes) <= STEPS


@pytest.mark.slow
def test_the_logs_that_it_learned_from_can_be_made_again():
    data = demo_logs()
    data.validate()
    assert data.only_log().episodes == NEW_EPISODES
    assert data.only_log().violations == 17  # as its model card says
    assert "1403 transitions, 17 violations" in (SHIELD / "MODEL_CARD.md").read_text()


@pytest.mark.slow
def test_the_command_that_makes_it_makes_one_that_protects(tmp_path):
    without, guarded = demo_shield.measure(demo_shield.make(tmp_path, seed=0) / "shield")
    assert without.violations > 180
    # Of shields of the seeds 0 to 3 the worst left one; another machine rounds differently.
    assert guarded.violations < 20


def test_the_demo_writes_a_picture_three_numbers_and_what_to_go_on_with(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("safemesa.shield.demo.demo_page.EPISODES", 4)
    monkeypatch.setattr("safemesa.shield.demo.demo_page.RECORDED", 1)
    out = tmp_path / "<b>demo</b>"
    assert main(["demo", "--shield", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert len(lines) == 4
    both = drive_both(Shield.load(SHIELD), NEW, TEST_SEED, 4)
    violations = counts_of(both.without).violations, counts_of(both.guarded).violations
    assert lines[0].startswith(f"{violations[0]} → {violations[1]} of 4 episodes hit the wall")
    text = (out / "report.html").read_text()
    assert f"<b>{violations[0]} → {violations[1]}</b>" in text
    assert "<b>demo" not in text
    assert "<script" not in text
    assert not re.search(r"https?:|url\(|@import", text)
    assert not_verified(check_folder(out / "shield")) == ""
    assert OfflineTasks.load(out / "log").only_log().episodes == 4
    # Given again, it replaces the page alone.
    before = (out / "black_box.jsonl").read_bytes()
    write_demo(out, "safemesa demo --shield")
    assert (out / "black_box.jsonl").read_bytes() == before
    assert EPISODES == 100


def test_the_demo_imports_neither_jax_nor_matplotlib(tmp_path):
    code = (
        "import sys; from safemesa.cli.main import main; "
        "import safemesa.shield.demo.demo_page as page; page.EPISODES = 2; "
        f"assert main(['demo', '--shield', '--out', {str(tmp_path / 'demo')!r}]) == 0; "
        "print(*{'jax', 'equinox', 'matplotlib', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == ""
