"""No change changes a result unawares; `golden_runs.py` says how to renew what is compared."""

import json
import os
import subprocess
import sys

import golden_runs
import pytest

GOLDEN = json.loads(golden_runs.FILE.read_text())


def now(what: str) -> dict[str, dict[str, str]]:
    """The hashes of these sources: in a process of its own, without the strictness of tests."""
    done = subprocess.run(
        [sys.executable, str(golden_runs.FILE.with_suffix(".py")), what],
        env={**os.environ, **golden_runs.ENVIRONMENT},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def differences(found: dict[str, dict[str, str]], key: str) -> list[str]:
    """Parts that are null there were changed on purpose where that platform was not at hand."""
    known = GOLDEN[key]
    return [
        f"{run}: {part}"
        for run in {**known, **found}
        for part in {**known.get(run, {}), **found.get(run, {})}
        if known.get(run, {}).get(part, "") is not None
        and known.get(run, {}).get(part) != found.get(run, {}).get(part)
    ]


def test_every_domain_guard_and_meta_learner_is_among_them() -> None:
    from safemesa.experiments.arms import configure
    from safemesa.guards.registry import guards
    from safemesa.learners.meta.registry import meta_learners
    from safemesa.phases.presets import DOMAIN_PRESETS

    runs = [configure(arm, domain, "quick") for arm, domain in golden_runs.RUNS]
    assert {run.domain for run in runs} == set(DOMAIN_PRESETS)
    assert {run.guard for run in runs} == set(guards)
    assert {run.meta_learner for run in runs} == set(meta_learners)
    assert {run.agent for run in runs} == {"sac", "carl"}


def test_programs_are_what_they_were() -> None:
    key = golden_runs.programs_key()
    if key not in GOLDEN:
        pytest.skip(f"golden_runs.json knows nothing of {key}; see golden_runs.py")
    assert differences(now("programs"), key) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_runs_leave_what_they_left() -> None:
    key = golden_runs.platform_key()
    if key not in GOLDEN:
        pytest.skip(f"golden_runs.json knows nothing of {key}; see golden_runs.py")
    assert differences(now("runs"), key) == []
