"""Runs of a grid do a Phase 1 that is the same for several of them once."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tiny import episodes_of, tiny_config

from safemesa.core.errors import CheckpointError
from safemesa.core.registry import Plugin
from safemesa.learners.meta import MAML, MAMLSettings, meta_learners
from safemesa.phases import run as pipeline
from safemesa.phases.config import RunConfig, with_names
from safemesa.phases.run import RunOptions, run


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The arms that do a Phase 1, in order."""
    arms, meta_train = [], pipeline.meta_train

    def counting(configs, *arguments):
        arms.append(configs[0].arm)
        return meta_train(configs, *arguments)

    monkeypatch.setattr(pipeline, "meta_train", counting)
    return arms


def test_a_shared_prior_changes_no_result(tmp_path: Path, trained: list[str]) -> None:
    options = RunOptions(data_dir=tmp_path / "data")
    sharing = replace(options, priors=tmp_path / "priors")
    run([tiny_config("mesa")], [tmp_path / "mesa"], sharing)
    run([tiny_config("mesa_frozen")], [tmp_path / "shared"], sharing)
    assert trained == ["mesa"]
    run([tiny_config("mesa_frozen")], [tmp_path / "alone"], options)
    assert trained == ["mesa", "mesa_frozen"]
    assert episodes_of(tmp_path / "shared") == episodes_of(tmp_path / "alone")
    # Its folder is complete, and says whose it is.
    prior = "artefacts/prior"
    for name in ("shared", "alone"):
        assert '"arm": "mesa_frozen"' in (tmp_path / name / prior / "manifest.json").read_text()
    weights = [(tmp_path / name / prior / "model.safetensors") for name in ("shared", "alone")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def others() -> list[tuple[str, RunConfig]]:
    """Runs whose Phase 1 is not that of `tiny_config("mesa")`."""
    mesa = tiny_config("mesa")
    return [
        ("a guard that adds to the loss of Phase 1", tiny_config("maml+csc")),
        ("another meta-learner", tiny_config("multitask")),
        ("another seed", replace(mesa, seed=8)),
        ("another rate", replace(mesa, meta=replace(mesa.meta, inner_rate=0.5))),
        ("another discount", replace(mesa, risk=replace(mesa.risk, gamma_risk=0.5))),
        ("other logs", replace(mesa, data_seed=1)),
    ]


@pytest.mark.parametrize(("what", "config"), others(), ids=[what for what, _ in others()])
def test_another_phase_1_is_not_shared(
    what: str, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del what

    def interrupted(*_):
        raise InterruptedError

    monkeypatch.setattr(pipeline, "meta_train", interrupted)
    mesa, options = tiny_config("mesa"), RunOptions(data_dir=tmp_path, priors=tmp_path / "priors")
    keys = [shared_priors(one, tmp_path / str(i), options) for i, one in enumerate((mesa, config))]
    assert keys[0] != keys[1]


def shared_priors(config: RunConfig, folder: Path, options: RunOptions) -> Path:
    """Where a run looks for its prior, with its training logs collected."""
    with pytest.raises(InterruptedError):
        run([config], [folder], options)
    domain = pipeline.find_domain(config.domain)
    shared = pipeline.SharedPriors(
        folder=options.priors or folder,
        configs=[config],
        spaces=domain.spaces,
        train=pipeline.train_folder(domain, config, options.data_dir),
    )
    assert shared.find() is None
    return shared.place(config)


def test_what_the_hash_does_not_cover_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Own(MAML):
        pass

    def possible(config: RunConfig) -> bool:
        domain = pipeline.find_domain(config.domain)
        folder = Path("nowhere")
        return pipeline.SharedPriors(
            folder=folder, configs=[config], spaces=domain.spaces, train=folder
        ).possible

    mesa = tiny_config("mesa")
    assert possible(mesa)
    assert not possible(tiny_config("mesa_as_printed"))  # its recovery policy saw the test log
    monkeypatch.setitem(meta_learners._plugins._items, "own", Plugin("own", MAMLSettings, Own))
    assert not possible(replace(mesa, meta_learner="own"))


def test_what_phase_1_does_not_read_leaves_its_prior_alone(tmp_path: Path) -> None:
    """Of the settings of a guard that has no say in the safety loss, and of later phases."""
    mesa = tiny_config("mesa")
    train = pipeline.train_folder(pipeline.find_domain(mesa.domain), mesa, tmp_path)
    train.mkdir()
    (train / "manifest.json").write_text("{}")

    def place(config: RunConfig) -> Path:
        spaces = pipeline.find_domain(config.domain).spaces
        return pipeline.SharedPriors(
            folder=tmp_path, configs=[config], spaces=spaces, train=train
        ).place(config)

    guard = mesa.guard_settings
    same = (
        replace(mesa, guard_settings=replace(guard, risk_limit=0.7)),
        replace(mesa, guard_settings=replace(guard, recovery_noise=0.0)),
        with_names(mesa, guard="sqrl"),
        replace(mesa, adapt=replace(mesa.adapt, learning_rate=1e-2)),
        replace(mesa, deploy=replace(mesa.deploy, learning_rate=1e-2)),
        replace(mesa, rehearsal=replace(mesa.rehearsal, adapt_share=0.1, worth=5)),
        replace(mesa, sac=replace(mesa.sac, batch=3)),
    )
    assert {place(config) for config in same} == {place(mesa)}
    csc = with_names(mesa, guard="csc")
    stricter = replace(csc, guard_settings=replace(csc.guard_settings, conservatism=1.0))
    others = (
        csc,
        stricter,
        replace(mesa, rehearsal=replace(mesa.rehearsal, rows=5)),
        replace(mesa, sampling=replace(mesa.sampling, violation_fraction=0.5)),
        replace(mesa, recovery=replace(mesa.recovery, penalty=0.5)),
    )
    assert len({place(config) for config in (mesa, *others)}) == 1 + len(others)


def test_a_damaged_shared_prior_is_refused(tmp_path: Path) -> None:
    options = RunOptions(data_dir=tmp_path / "data", priors=tmp_path / "priors")
    run([tiny_config("mesa")], [tmp_path / "mesa"], options)
    (tensors,) = (tmp_path / "priors").glob("*/model.safetensors")
    tensors.write_bytes(tensors.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="Remove its folder, and the next run"):
        run([tiny_config("mesa_frozen")], [tmp_path / "frozen"], options)
