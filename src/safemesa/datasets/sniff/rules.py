"""What a column probably means: one table of rules, read from the top; the first that fits counts.

A rule sees a column's facts alone. What needs other columns (copies, clocks, episodes) is decided
in `propose`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from safemesa.datasets.sniff.description import TEXT, TIME
from safemesa.datasets.sniff.facts import Facts

IGNORE, TIMES, TASK, EPISODE, STEP, REWARD = "ignore", "time", "task", "episode", "step", "reward"
TERMINATED, TRUNCATED, DONE = "terminated", "truncated", "done"
COST, ALARM, RARE = "cost", "alarm", "rare"
ACTION, MAYBE_ACTION, OBSERVATION = "action", "maybe action", "observation"

RARELY = 0.2
"""Share of ones below which a column of zeros and ones may mark violations."""
SELDOM = 0.2
"""Share of changing rows below which a column may number runs or robots."""
ALWAYS = 0.9
AT_ENDS = 0.02
"""Share of rows at a bound above which a signal looks saturated."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A meaning, the names that suggest it, what the values must be, and the reason in words."""

    role: str
    names: frozenset[str] | None = None
    """Words, or all words of a name joined by `_`; None: any name."""
    whole: bool = False
    """Only all words joined count: `robot`, but not `robot_mode`."""
    fits: Callable[[Facts], bool] = lambda facts: True
    because: str
    """With the facts in braces."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _is_number(facts: Facts) -> bool:
    return facts.kind != TEXT and facts.width is None


def _labels(facts: Facts) -> bool:
    """Texts or whole numbers that seldom change."""
    named = bool(facts.texts) if facts.kind == TEXT else facts.whole and facts.width is None
    return named and facts.changes <= SELDOM and not facts.missing


def _rises(facts: Facts) -> bool:
    return _is_number(facts) and facts.rises >= ALWAYS and facts.changes >= SELDOM


def _steady(facts: Facts) -> bool:
    return _is_number(facts) and not facts.binary and facts.at_ends >= AT_ENDS


RULES: tuple[Rule, ...] = (
    Rule(role=IGNORE, fits=lambda facts: not facts.count, because="no cell has a value"),
    Rule(
        role=TASK,
        names=_names(
            "robot robot_id robot_name vehicle vehicle_id agv agv_id drone drone_id machine "
            "machine_id device device_id task task_id car car_id truck unit_id serial robotid"
        ),
        whole=True,
        fits=lambda facts: _labels(facts) and not facts.constant,
        because="named so, with {distinct} labels",
    ),
    Rule(
        role=IGNORE,
        names=_names("task_index"),
        whole=True,
        because="numbers what the robot was told to do",
    ),
    Rule(
        role=EPISODE,
        names=_names(
            "run run_id run_no run_nr run_number run_index runid episode episode_id episode_no "
            "episode_index episode_number metadata_episode ep ep_id ep_no trial trial_id trial_no "
            "traj traj_id trajectory trajectory_id rollout demo demo_id mission mission_id session "
            "session_id lap lap_no trip trip_id"
        ),
        whole=True,
        fits=lambda facts: _labels(facts) and not facts.constant,
        because="named so, and changes in {changes:.1%} of the rows",
    ),
    Rule(role=IGNORE, fits=lambda facts: facts.constant, because="never changes"),
    Rule(
        role=TIMES,
        names=_names(
            "t time timestamp timestamps stamp ts clock datetime secs seconds utc elapsed epoch"
        ),
        fits=_rises,
        because="named so, and rises",
    ),
    Rule(role=TIMES, fits=lambda facts: facts.kind == TIME and _rises(facts), because="dates"),
    Rule(role=IGNORE, fits=lambda facts: facts.kind == TEXT, because="text"),
    Rule(role=IGNORE, fits=lambda facts: facts.kind == TIME, because="dates that do not rise"),
    Rule(
        role=STEP,
        names=_names("step step_index frame frame_index tick timestep steps"),
        fits=lambda facts: _is_number(facts) and facts.counts_up >= ALWAYS,
        because="named so, and counts rows",
    ),
    Rule(role=REWARD, names=_names("reward rewards rew"), fits=_is_number, because="named so"),
    Rule(
        role=TERMINATED,
        names=_names("terminated terminations terminal terminals is_terminal absorbing"),
        fits=lambda facts: facts.binary,
        because="named so, with zeros and ones",
    ),
    Rule(
        role=TRUNCATED,
        names=_names("truncated truncations timeout timeouts is_truncated"),
        fits=lambda facts: facts.binary,
        because="named so, with zeros and ones",
    ),
    Rule(
        role=DONE,
        names=_names("done dones is_done episode_done next_done is_last is_end"),
        fits=lambda facts: facts.binary,
        because="named so, with zeros and ones",
    ),
    Rule(
        role=COST,
        names=_names(
            "cost costs violation violations violated unsafe constraint_violation is_violation "
            "infos_cost info_cost"
        ),
        fits=_is_number,
        because="named so, 1 in {ones:.2%} of the rows",
    ),
    Rule(
        role=ALARM,
        names=_names(
            "bumper estop e_stop emergency emergency_stop protective_stop collision collided "
            "crash crashed contact fault failure fallen fell hit alarm stall stalled overload "
            "tipped breach safety_stop"
        ),
        fits=lambda facts: facts.binary,
        because="named so, 1 in {ones:.2%} of the rows",
    ),
    Rule(
        role=IGNORE,
        names=_names("success successes succeeded is_success goal_reached"),
        fits=lambda facts: facts.binary,
        because="says of success, not of harm",
    ),
    Rule(
        role=RARE,
        fits=lambda facts: facts.binary and 0 < facts.ones <= RARELY,
        because="1 in {ones:.2%} of the rows",
    ),
    Rule(
        role=IGNORE,
        names=_names("index idx row id seq sequence counter count n i no nr number"),
        fits=lambda facts: _is_number(facts) and facts.counts_up >= ALWAYS,
        because="counts rows",
    ),
    Rule(
        role=OBSERVATION,
        names=_names("previous prev last measured actual feedback fb"),
        because="{range}",
    ),
    Rule(
        role=ACTION,
        names=_names(
            "cmd command commands commanded cmds action actions act ctrl control controls u input "
            "inputs setpoint setpoints"
        ),
        fits=lambda facts: facts.kind != TEXT,
        because="named like a command, {range}",
    ),
    Rule(
        role=MAYBE_ACTION,
        names=_names(
            "throttle brake steer steering pwm duty thrust push torque voltage motor target "
            "desired reference drive gas heater valve pump"
        ),
        fits=lambda facts: facts.kind != TEXT,
        because="may be a command by its name, {range}",
    ),
    Rule(
        role=OBSERVATION,
        fits=lambda facts: _steady(facts) and facts.changes > SELDOM,
        because="{range}, {at_ends:.0%} of the rows at an end: a command?",
    ),
    Rule(role=OBSERVATION, because="{range}"),
)
"""From names and values to a meaning."""


def judge(facts: Facts) -> tuple[str, str]:
    """The role of a column, and why."""
    joined = "_".join(facts.words)
    for rule in RULES:
        named = rule.names is None or joined in rule.names
        named = named or (not rule.whole and _has_word(facts, rule.names or frozenset()))
        if named and rule.fits(facts):
            return rule.role, rule.because.format(**_shown(facts))
    raise AssertionError("the last rule fits every column")


def _has_word(facts: Facts, names: frozenset[str]) -> bool:
    """Words of one letter count only as the whole name, but for numbers after it."""
    letters = [word for word in facts.words if not word.isdigit()]
    if len(letters) == 1:
        return letters[0] in names
    return any(len(word) > 1 and word in names for word in letters)


def _shown(facts: Facts) -> dict[str, object]:
    names = ("distinct", "changes", "ones", "at_ends")
    values: dict[str, object] = {name: getattr(facts, name) for name in names}
    return {**values, "range": f"{facts.low:.4g} to {facts.high:.4g}"}
