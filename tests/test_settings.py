"""Settings live with who reads them: what phases read, files of earlier versions, and `--help`."""

import dataclasses
import importlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import logs
import pytest
from tiny import tiny_config

from safemesa.cli import grid as grid_verb, phases as phase_verbs
from safemesa.cli.arguments import SECTIONS, Common, current_spelling, field_docs
from safemesa.cli.grid import GridFlags, make_grid
from safemesa.cli.main import main
from safemesa.cli.run_arm import RunFlags
from safemesa.core.errors import ConfigurationError
from safemesa.core.registry import PluginRegistry
from safemesa.domains.registry import domain as find_domain
from safemesa.experiments.arms import configure
from safemesa.guards.registry import guards
from safemesa.guards.settings import GuardSettings
from safemesa.learners.meta.registry import meta_learners
from safemesa.learners.recovery.registry import recoveries
from safemesa.phases.adapt import adapt, scratch_prior
from safemesa.phases.collection.logs import train_policy
from safemesa.phases.config import (
    PHASES,
    RunConfig,
    UnreadSettings,
    config_from_json,
    config_to_json,
    with_names,
)
from safemesa.phases.loop import ChunkLoop
from safemesa.phases.meta_train import meta_train

ROOT = Path(__file__).resolve().parents[1]
OLD = json.loads((ROOT / "tests" / "old_configs.json").read_text())
"""Configurations as version 0.1 wrote them, with the settings of all guards in one record."""

CHANGED_SINCE: dict[tuple[str, str], dict[tuple[str, str], tuple[Any, Any]]] = {
    ("safemesa", "cartpole"): {
        ("risk", "loss"): ("mse", "bce"),
        ("deploy", "learn_risk"): (False, True),
    },
}
"""Settings that arms have changed on purpose since: what they were, and what they are."""

REGISTRIES: tuple[PluginRegistry, ...] = (guards, meta_learners, recoveries)


# -- who reads what ---------------------------------------------------------------------------


@pytest.mark.parametrize("registry", [guards, meta_learners], ids=("guards", "meta-learners"))
def test_declared_settings_are_those_of_the_class(registry: PluginRegistry) -> None:
    more = {"risk": tiny_config().risk} if registry is meta_learners else {}
    for name in registry:
        made = registry[name](**more)
        assert type(made.settings) is registry.find(name).settings, name


@pytest.mark.parametrize("registry", [guards, meta_learners], ids=("guards", "meta-learners"))
def test_every_setting_is_read_by_who_has_it(registry: PluginRegistry) -> None:
    """One that nobody names would be shown and recorded, and mean nothing."""
    of_phase_1 = {"iterations", "recovery_rate", "recovery_logs"}
    for name in registry:
        modules = {one.__module__ for one in registry[name].__mro__ if "safemesa" in one.__module__}
        texts = [Path(str(sys.modules[one].__file__)).read_text() for one in modules]
        read = set(re.findall(r"settings\.(\w+)", "".join(texts))) | of_phase_1
        if name != "scratch":
            assert {one.name for one in dataclasses.fields(registry.find(name).settings)} <= read


class Watched:
    """Stands for a configuration, and notes which of its settings are asked for."""

    def __init__(self, config: Any, noted: set[str], place: str = "") -> None:
        self._config, self._noted, self._place = config, noted, place

    @property
    def __class__(self) -> type:  # what it stands for is what type checks are to see
        return type(self._config)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._config, name)
        if name not in {one.name for one in dataclasses.fields(self._config)}:
            return value
        self._noted.add(f"{self._place}{name}")
        return Watched(value, self._noted, f"{name}.") if name in SECTIONS else value


class Traced(ChunkLoop):
    """Traces a chunk, so that all that it reads is read, and computes nothing."""

    def run(self, axis, state, total, chunk, advance):
        del axis, chunk
        jax.eval_shape(lambda given: advance(given, 0, total)[0], state)
        return state


def unread(noted: set[str], phase: str) -> tuple[set[str], set[str]]:
    """What was read and is not declared, and what is declared and was not read."""
    declared = set(PHASES[phase])
    asked = {name for name in noted if name not in SECTIONS}
    beside = {
        name for name in asked if name not in declared and name.partition(".")[0] not in declared
    }
    # Phase 1 asks every guard whether it adds to the loss.
    idle = {name for name in declared if not any(f"{one}.".startswith(f"{name}.") for one in asked)}
    return beside - {"guard"}, idle


@pytest.mark.parametrize("arm", ["maml+recovery_rl", "safemesa", "meta_sgd+sqrl"])
def test_phases_read_what_they_declare(arm: str) -> None:
    fleet = logs.cart_fleet(tasks=2, episodes=4)
    test = replace(fleet, train=(), test=replace(fleet.train[0], role="test"))
    config = replace(tiny_config(arm), rehearsal=tiny_config("safemesa").rehearsal)
    noted: set[str] = set()
    meta_train([Watched(config, noted)], fleet, loop=Traced("meta_train"))
    assert unread(noted, "meta_train") == (set(), set())
    limit = replace(config.guard_settings, risk_limit=0.3)
    given, noted = replace(config, guard_settings=limit), set()
    adapt([Watched(given, noted)], [scratch_prior(given, test)], [test], Traced("adapt"))
    beside, idle = unread(noted, "adapt")
    assert not beside
    # Of guards only `takeover`, of meta-learners those with inner steps are asked in Phase 2.
    assert idle <= {"guard_settings", "meta"}


def test_a_configuration_keeps_guard_and_settings_together() -> None:
    config = tiny_config("mesa")
    with pytest.raises(ConfigurationError, match=r"the guard 'sqrl' reads a SQRLSettings"):
        replace(config, guard="sqrl")
    other = with_names(config, guard="sqrl", meta_learner="multitask")
    assert other.guard_settings.risk_limit == config.guard_settings.risk_limit
    assert other.meta.query_batch == config.meta.query_batch
    # What a guard leaves to the data, neither a preset nor another guard's limit decides.
    assert with_names(config, guard="takeover").risk_limit is None
    assert configure("maml+takeover", "maze", "quick").risk_limit is None
    assert RunConfig(guard="none").guard_settings == GuardSettings()
    assert RunConfig(guard="none").risk_limit is None


# -- files of earlier versions ----------------------------------------------------------------


@pytest.mark.parametrize("values", OLD, ids=lambda one: f"{one['arm']}-{one['domain']}")
def test_old_configurations_are_what_their_arms_are_now(values: dict[str, Any]) -> None:
    config = config_from_json(RunConfig, values)
    now = configure(config.arm, config.domain, config.preset)
    changed = CHANGED_SINCE.get((config.arm, config.domain), {})
    for (section, name), (old, new) in changed.items():
        assert getattr(getattr(config, section), name) == old
        assert getattr(getattr(now, section), name) == new
        now = replace(now, **{section: replace(getattr(now, section), **{name: old})})
    assert config == now
    again = json.loads(json.dumps(config_to_json(config)))
    assert config_from_json(RunConfig, again) == config


def test_old_values_are_kept_by_who_reads_them_now() -> None:
    values = json.loads(json.dumps(OLD[0]))
    values["risk"] |= {"risk_limit": 0.7, "recovery_noise": 0.2, "recovery_penalty": 0.5}
    values["risk"] |= {"learning_rate": 0.25, "violation_fraction": 0.1}
    values["data"] |= {"safe_starts": True, "next_action": "logged"}
    config = config_from_json(RunConfig, values)
    assert (config.risk_limit, config.guard_settings.recovery_noise) == (0.7, 0.2)
    assert config.recovery == replace(config.recovery, penalty=0.5)
    assert config.adapt.learning_rate == config.deploy.learning_rate == 0.25
    assert config.sampling.violation_fraction == 0.1
    assert (config.sampling.safe_starts, config.sampling.next_action) == (True, "logged")
    for guard, limit in (("takeover", 0.4), ("sqrl", 0.7)):
        other = {**values, "guard": guard, "takeover": {**values["takeover"], "limit": 0.4}}
        assert config_from_json(RunConfig, other).risk_limit == limit


def test_committed_runs_can_be_read() -> None:
    files = sorted((ROOT / "results").rglob("config.json"))
    for file in files[::7]:
        config_from_json(RunConfig, json.loads(file.read_text())["config"], str(file))


def test_unknown_settings_are_refused_in_files_of_any_version() -> None:
    new = config_to_json(tiny_config("mesa"))
    for section, name in (("guard_settings", "samples"), ("meta", "step_size_rate"), ("risk", "x")):
        with pytest.raises(ConfigurationError, match=name):
            config_from_json(RunConfig, {**new, section: {**new[section], name: 3}})
    with pytest.raises(ConfigurationError, match="gama"):
        config_from_json(RunConfig, {**OLD[0], "risk": {**OLD[0]["risk"], "gama": 0.5}})


def test_settings_of_a_guard_that_is_not_at_hand_are_kept() -> None:
    values = config_to_json(tiny_config("mesa"))
    values |= {"guard": "a_users", "guard_settings": {"blend": 0.5, "names": ["a"]}}
    config = config_from_json(RunConfig, values)
    assert isinstance(config.guard_settings, UnreadSettings)
    assert json.loads(json.dumps(config_to_json(config))) == json.loads(json.dumps(values))


# -- plug-ins of a user's ---------------------------------------------------------------------

OWN = '''
from dataclasses import dataclass

from safemesa.domains.navigation import NAVIGATION2
from safemesa.guards import AbstractGuard, LimitSettings, let_run
from safemesa.learners.meta import MAML, MAMLSettings, AbstractMetaLearner
from safemesa.learners.recovery import AbstractRecovery, RecoverySettings, recoveries

DOMAIN = NAVIGATION2


@dataclass(frozen=True, kw_only=True)
class PatientSettings(LimitSettings):
    patience: float = 0.25
    """How long it waits."""


@dataclass(frozen=True, kw_only=True)
class Patient(AbstractGuard):
    settings: PatientSettings = PatientSettings()

    def select_action(self, state, situation, *, key):
        return let_run(situation)


@dataclass(frozen=True, kw_only=True)
class SlowSettings(MAMLSettings):
    slowness: int = 3
    """How slow it is."""


@dataclass(frozen=True, kw_only=True)
class Slow(AbstractMetaLearner):
    settings: SlowSettings = SlowSettings()

    def update(self, state, support, query, risk_term):
        return state, {}


@dataclass(frozen=True, kw_only=True)
class BackSettings(RecoverySettings):
    strength: float = 0.5
    """How hard it backs off."""


@recoveries.register("OWN_back", settings=BackSettings)
class Back(AbstractRecovery):
    @classmethod
    def make(cls, settings, risk, spaces, *, key):
        return cls()

    def act(self, critic, obs, memory):
        return obs[:2], memory
'''


@pytest.fixture
def own(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module of a user's."""
    name = "own_" + re.sub(r"\W", "_", request.node.name)
    (tmp_path / f"{name}.py").write_text(OWN.replace("OWN", name))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return name


def help_of(capsys: pytest.CaptureFixture, *words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main([*words, "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_settings_of_a_users_plugins_are_shown_recorded_and_read(
    own: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arm = f"{own}:Slow+{own}:Patient"
    shown = help_of(capsys, "run", arm, "navigation2", "--recovery.kind", f"{own}:Back")
    for flag, text in (
        ("--guard-settings.patience", "How long it waits."),
        ("--guard-settings.risk-limit", "eps_risk"),
        ("--meta.slowness", "How slow it is."),
        ("--recovery.strength", "How hard it backs off."),
    ):
        assert flag in shown
        assert text in shown
    assert "--recovery.objective" not in shown
    config = configure(arm, "navigation2", "quick")
    assert config.guard_settings.patience == 0.25
    # What a domain's preset says to all guards is told this one, too.
    assert config.risk_limit == configure("mesa", "navigation2", "quick").risk_limit
    changed = replace(config.guard_settings, patience=2.0)
    config = with_names(replace(config, guard_settings=changed), recovery=f"{own}:Back")
    values = json.loads(json.dumps(config_to_json(config)))
    assert values["guard_settings"]["patience"] == 2.0
    assert values["recovery"] == {"kind": f"{own}:Back", "strength": 0.5}
    assert config_from_json(RunConfig, values) == config


def test_a_registered_name_is_known_once_its_module_is_named(
    own: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("run", "mesa", f"{own}:DOMAIN", "--recovery.kind", f"{own}_back")
    assert "--recovery.strength" in help_of(capsys, *words)


def test_what_is_no_plugin_is_refused(own: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name, message in (
        (f"maml+{own}:Nothing", "cannot be imported"),
        (f"maml+{own}:DOMAIN", "expected the class of a guard"),
        ("maml+no_such_module:Guard", "the guard 'no_such_module:Guard' cannot be imported"),
    ):
        assert main(["run", name, "navigation2", "--out", "nowhere"]) == 2
        assert message in capsys.readouterr().err


def test_a_compiled_domain_of_a_users_runs_with_defaults(own: str) -> None:
    """Its logs are those of its random policies; a simulator's are those of SAC."""
    config = configure("mesa", f"{own}:DOMAIN", "quick")
    assert train_policy(find_domain(config.domain), config) == "random"
    assert train_policy(find_domain("cartpole"), config) == "sac"


# -- the command line -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("collect", "maze"), {"data", "sac"}),
        (
            ("meta-train", "nowhere"),
            {"sampling", "risk", "target", "recovery", "rehearsal", "meta"},
        ),
        (("adapt", "prior", "log"), {"adapt", "guard-settings", "sampling", "rehearsal"}),
        (("deploy", "risk", "maze"), {"deploy", "sac", "guard-settings", "sampling"}),
        (("run", "carl", "maze"), {"data", "carl", "deploy"}),
        (("run", "scratch+none", "maze"), {"data", "sac", "deploy"}),
    ],
    ids=lambda one: "-".join(one) if isinstance(one, tuple) else "",
)
def test_help_shows_what_the_verb_reads(
    words: tuple[str, ...], shown: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(capsys, *words)
    sections = set(re.findall(r"--(?:no-)?([a-z-]+)\.[a-z]", text))
    assert shown <= sections
    unread = {"collect": {"meta", "adapt", "deploy"}, "meta-train": {"adapt", "deploy", "sac"}}
    unread |= {"adapt": {"data", "deploy", "sac"}, "deploy": {"data", "meta", "adapt"}}
    assert not sections & unread.get(words[0], set())
    assert ("carl" in sections) == ("carl" in words)
    assert ("guard-settings" in sections) == (words[0] in ("meta-train", "adapt", "deploy"))
    assert ("meta" in sections) == ("meta-train" in words or "adapt" in words)


def test_every_flag_has_a_line_of_text() -> None:
    records = [type(getattr(RunConfig(), name)) for name in SECTIONS]
    records += [registry.find(name).settings for registry in REGISTRIES for name in registry]
    records += [Common, RunFlags, GridFlags, grid_verb.SlurmConfig]
    records += [phase_verbs.CollectFlags, phase_verbs.MetaTrainFlags]
    records += [phase_verbs.AdaptFlags, phase_verbs.DeployFlags]
    for kind in records:
        named = {"arm", "domain"} if kind in (RunFlags, phase_verbs.CollectFlags) else set()
        wanted = {one.name for one in dataclasses.fields(kind)} - named
        assert wanted <= set(field_docs(kind)), kind


def test_flags_that_have_moved_are_still_understood(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--risk.risk_limit=0.3", "--takeover.calm-share", "0.9", "--data.next-action", "x"]
    now = ["--guard-settings.risk-limit=0.3", "--guard-settings.calm-share", "0.9"]
    now += ["--sampling.next-action", "x"]
    assert current_spelling("run", given) == now
    assert "--takeover.calm-share is called --guard-settings.calm-share now" in (
        capsys.readouterr().err
    )
    both = ["--adapt.learning-rate", "1", "--deploy.learning-rate", "1"]
    assert current_spelling("run", ["--risk.learning-rate", "1"]) == both
    assert current_spelling("adapt", ["--steps", "3"]) == ["--adapt.steps", "3"]
    assert current_spelling("skill", ["--horizon", "3"]) == ["--horizon", "3"]


def test_a_grid_gives_each_arm_the_flags_that_it_reads(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--arms", "mesa,maml+sqrl,multitask,carl", "--domains", "maze", "--seeds", "0"]
    words += ["--guard-settings.samples", "7", "--guard-settings.risk-limit", "0.4"]
    words += ["--meta.tasks", "3", "--guard-settings.violation-penalty", "5"]
    flags = grid_verb.parse_before_presets(GridFlags, "grid", words, SECTIONS)
    runs = {run.config.arm: run.config for run in make_grid(flags, "grid", words).runs}
    assert runs["maml+sqrl"].guard_settings.samples == 7
    assert runs["maml+sqrl"].risk_limit == runs["mesa"].risk_limit == 0.4
    assert runs["mesa"].meta.tasks == 3
    assert runs["multitask"].meta == configure("multitask", "maze", "paper").meta
    told = capsys.readouterr().err
    assert "--guard-settings.violation-penalty is read by nothing here" in told
    assert "samples" not in told


def test_runs_of_plugins_that_registries_know_need_no_jax() -> None:
    code = (
        "import sys\nfrom safemesa.experiments.arms import configure\n"
        "configure('meta_sgd+csc', 'maze', 'cpu')\nassert 'jax' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
