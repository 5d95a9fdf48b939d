"""Topics become rows: beside a row by row computation, whatever the chunks are."""

import numpy as np
import pytest

from safemesa.core.errors import ConfigurationError
from safemesa.datasets.importers.import_map import map_from_record
from safemesa.datasets.importers.message_path import (
    Array,
    Leaf,
    Name,
    Record,
    find_path,
    get_key,
    list_columns,
    make_getter,
    parse_steps,
)
from safemesa.datasets.importers.resample import Resampler
from safemesa.datasets.importers.resample_map import ResampleMap, Rule

MS = 1_000_000


def resampled(lanes, samples, chunks=1, dt=1e7, late=50 * MS, gap=200 * MS, events=None):
    """Rows of samples that arrive in so many chunks of time."""
    resampler = Resampler(lanes, dt, late, gap, events is not None)
    every = np.sort(np.concatenate([times for times, _ in samples.values()]))
    edges = [*every[:: max(len(every) // chunks, 1)][1:chunks].tolist(), 2**62]
    rows, first = [], -(2**62)
    for edge in edges:
        for key, (times, values) in samples.items():
            inside = (times >= first) & (times < edge)
            resampler.add(key, times[inside], {key: values[inside]})
        if events is not None:
            inside = (events[0] >= first) & (events[0] < edge)
            resampler.add_events(events[0][inside], events[1][inside])
        rows += list(resampler.rows())
        first = edge
    rows += list(resampler.rows(final=True))
    times = np.concatenate([one.times for one in rows])
    columns = {key: np.concatenate([one.columns[key] for one in rows]) for key in samples}
    return times, columns, np.concatenate([one.episode for one in rows]), resampler


def plain(times, values, at, rule, dt=10 * MS):
    """One value, computed as the documentation says it."""
    before = [k for k in range(len(times)) if times[k] <= at]
    after = [k for k in range(len(times)) if times[k] > at]
    last = before[-1] if before and at - times[before[-1]] <= rule.max_age else None
    following = after[0] if after and times[after[0]] - at <= rule.max_age else None
    if rule.method == "last":
        return np.nan if last is None else values[last]
    if rule.method == "max":
        inside = [values[k] for k in before if times[k] > at - dt]
        return max(inside) if inside else (np.nan if last is None else values[last])
    if rule.method == "nearest":
        if last is None or following is None:
            known = last if following is None else following
            return np.nan if known is None else values[known]
        return values[last if at - times[last] <= times[following] - at else following]
    if last is not None and times[last] == at:
        return values[last]
    if last is None or following is None:
        return np.nan
    share = (at - times[last]) / (times[following] - times[last])
    return values[last] * (1 - share) + values[following] * share


@pytest.mark.parametrize("method", ["last", "linear", "nearest", "max"])
@pytest.mark.parametrize("chunks", [1, 2, 50])
def test_every_method_is_as_documented(method, chunks):
    rng = np.random.default_rng(3)
    fast = np.cumsum(rng.integers(1, 9 * MS, 300))
    slow = 7 * MS + np.cumsum(rng.integers(5 * MS, 60 * MS, 40))
    age = 20 * MS if method == "nearest" else 45 * MS
    rules = {"a": Rule(method="last", max_age=15 * MS), "b": Rule(method=method, max_age=age)}
    samples = {"a": (fast, rng.normal(size=300)), "b": (slow, rng.normal(size=40))}
    lanes = {key: {key: rule} for key, rule in rules.items()}
    times, columns, _, _ = resampled(lanes, samples, chunks)
    assert times[0] == max(fast[0], slow[0])
    assert (np.diff(times) == 10 * MS).all()
    assert len(times) > 100
    for key, rule in rules.items():
        expected = [plain(*samples[key], at, rule) for at in times]
        np.testing.assert_allclose(columns[key], expected, rtol=1e-12, err_msg=key)
    missing = np.isnan(columns["b"]).mean()
    assert 0 < missing < 0.5, "the example has values that are too old"


def test_rows_pause_where_nothing_is_logged_and_begin_again():
    times = np.concatenate([np.arange(0, 100), np.arange(400, 500)]) * 10 * MS + 3
    samples = {"a": (times, np.arange(200.0))}
    for chunks in (1, 7, 200):
        made, columns, episode, _ = resampled(
            {"a": {"a": Rule(method="last", max_age=30 * MS)}}, samples, chunks
        )
        np.testing.assert_array_equal(made, times)
        np.testing.assert_array_equal(columns["a"], np.arange(200.0))
        assert (episode == 0).all()


def test_a_lone_stamp_far_ahead_makes_no_rows_up_to_it():
    times = np.append(np.arange(100) * 10 * MS, 2**61)
    made, _, _, _ = resampled(
        {"a": {"a": Rule(method="last", max_age=30 * MS)}}, {"a": (times, np.zeros(101))}
    )
    assert len(made) == 101


def test_what_comes_late_is_put_in_order_or_counted():
    lanes = {"a": {"a": Rule(method="last", max_age=10**12)}}
    resampler = Resampler(lanes, 1e7, 50 * MS, 10**12, False)

    def add(time, value):
        resampler.add("a", np.asarray([time * MS]), {"a": np.asarray([value])})
        return [row for rows in resampler.rows() for row in rows.columns["a"].tolist()]

    found = add(0, 0.0) + add(40, 4.0) + add(45, 4.5) + add(20, 2.0) + add(200, 20.0)
    assert found == [0.0, 0.0, 2.0, 2.0, 4.0]
    assert resampler.late_samples == 0
    add(30, 3.0)
    assert resampler.late_samples == 1


def test_a_restart_forgets_and_counts_episodes():
    lanes = {"a": {"a": Rule(method="last", max_age=30 * MS)}}
    resampler = Resampler(lanes, 1e7, 50 * MS, 200 * MS, False)
    times = np.arange(50) * 10 * MS + 10**12
    resampler.add("a", times, {"a": np.ones(50)})
    first = list(resampler.rows(final=True))
    resampler.restart()
    resampler.add("a", times - 10**12, {"a": np.ones(50)})
    second = list(resampler.rows(final=True))
    assert [one.episode.tolist() for one in first + second] == [[0] * 50, [1] * 50]
    assert second[0].times[0] == 0


def test_a_stop_after_the_last_row_holds_over_a_restart():
    lanes = {"a": {"a": Rule(method="last", max_age=30 * MS)}}
    resampler = Resampler(lanes, 1e7, 50 * MS, 200 * MS, True)
    times, made = np.arange(50) * 10 * MS, []
    for start in (10**12, 0):
        resampler.add("a", times + start, {"a": np.ones(50)})
        if start:
            resampler.add_events(np.asarray([0, 495 * MS]) + start, np.asarray([2, 0]))
        made.append(sum(len(rows.times) for rows in resampler.rows(final=True)))
        resampler.restart()
    assert made == [50, 0]


@pytest.mark.parametrize("chunks", [1, 2, 105])
def test_the_largest_of_the_last_samples_has_a_row(chunks):
    times = np.arange(105) * 10 * MS
    rule = Rule(method="max", max_age=300 * MS)
    made, columns, _, _ = resampled(
        {"a": {"a": rule}}, {"a": (times, times / MS)}, chunks, dt=1e8, late=MS
    )
    assert (made / MS).tolist() == [*range(0, 1101, 100)]
    assert columns["a"].tolist() == [*range(0, 1001, 100), 1040]


@pytest.mark.parametrize("chunks", [1, 9])
def test_episodes_last_from_start_to_stop(chunks):
    samples = {"a": (np.arange(100) * 10 * MS, np.arange(100.0))}
    events = (np.asarray([105, 305, 605, 705]) * MS, np.asarray([2, 0, 2, 2]))
    times, _, episode, _ = resampled(
        {"a": {"a": Rule(method="last", max_age=30 * MS)}}, samples, chunks, events=events
    )
    expected = [*range(11, 31), *range(61, 100)]
    np.testing.assert_array_equal(times, np.asarray(expected) * 10 * MS)
    np.testing.assert_array_equal(episode, [0] * 20 + [1] * 10 + [2] * 29)


def test_what_is_held_does_not_grow_with_the_log():
    lanes = {key: {key: Rule(method="linear", max_age=30 * MS)} for key in ("a", "b")}
    resampler = Resampler(lanes, 1e7, 50 * MS, 200 * MS, False)
    rows = 0
    for part in range(50):
        times = (np.arange(1000) + 1000 * part) * 10 * MS
        for key in lanes:
            resampler.add(key, times, {key: np.ones(1000)})
        rows += sum(len(one.times) for one in resampler.rows())
        assert all(len(lane.times) < 20 for lane in resampler.lanes.values())
    assert rows > 49_000


def test_a_topic_that_waits_for_another_is_not_held_either():
    lanes = {key: {key: Rule(method="last", max_age=30 * MS)} for key in ("a", "b")}
    resampler = Resampler(lanes, 1e7, 50 * MS, 200 * MS, False)
    for part in range(20):
        times = (np.arange(1000) + 1000 * part) * 10 * MS
        resampler.add("a", times, {"a": np.ones(1000)})
        assert list(resampler.rows()) == []
        assert len(resampler.lanes["a"].times) < 20
    resampler.add("b", times[-1:], {"b": np.ones(1)})
    (rows,) = resampler.rows(final=True)
    assert rows.times.tolist() == times[-1:].tolist()
    assert (resampler.slowest, resampler.skipped) == ("b", int(times[-1]))


# Paths.

NUMBER, WORD = Leaf("number", "float64"), Leaf("text", "string")
JOINTS = Record(
    lambda: {
        "header": Record(lambda: {"frame_id": WORD}),
        "name": Array(WORD),
        "position": Array(NUMBER),
        "covariance": Array(NUMBER, 3),
        "parts": Array(Record(lambda: {"name": WORD, "value": NUMBER})),
    }
)
TOPICS = {"/a": JOINTS, "/a.b": Record(lambda: {"x": NUMBER})}
MESSAGE = {
    "name": ["elbow", "wrist"],
    "position": [1.0, 2.0],
    "covariance": [7.0, 8.0, 9.0],
    "parts": [{"name": "left", "value": 3.0}, {"name": "right", "value": 4.0}],
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("/a.position[wrist]", 2.0),
        ("/a.position[0]", 1.0),
        ("/a.position[5]", None),
        ("/a.position[knee]", None),
        ("/a.covariance", [7.0, 8.0, 9.0]),
        ("/a.covariance[2]", 9.0),
        ("/a.parts[right].value", 4.0),
        ("/a.parts[0].value", 3.0),
        ("/a.header.frame_id", None),
    ],
)
def test_a_path_reads_its_field(text, value):
    path = find_path(text, TOPICS)
    assert path is not None
    assert make_getter([path], get_key)(MESSAGE) == (value,)


@pytest.mark.parametrize(
    "text",
    ["/a", "/a.", "/a.position", "/a.nothing", "/a.covariance[3]", "/a.parts", "/a[0]", "/c.x",
     "/a.position[]", "/a.position[[0]]", "/a.position[0", "/a.header", "/a.name", "/a..name",
     "/a.position[99999999999]"],
)  # fmt: skip
def test_what_is_no_column_is_none(text):
    assert find_path(text, TOPICS) is None


def test_a_topic_may_have_dots_in_its_name():
    path = find_path("/a.b.x", TOPICS)
    assert path is not None
    assert (path.topic, path.steps) == ("/a.b", ("x",))
    assert parse_steps(".a[b][3]") == ("a", Name("b"), 3)


def test_types_that_contain_themselves_are_listed_in_part():
    node = Record(lambda: {"x": NUMBER, "inner": node})
    assert 5 < len(list_columns("/t", node)) < 30


# The table of the map.

SOUND = {"time": "log", "max_age": 0.5}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "cubic"}, "method is 'cubic'"),
        ({"max_age": -1.0}, "max_age is -1.0"),
        ({"late": 0.0}, "late is 0.0"),
        ({"restart": "ignore"}, "restart is 'ignore'"),
        ({"running": "/r.data", "start": "/s"}, "running beside start"),
        ({"stop": "/s"}, "stop without start"),
        ({"maxage": 1.0}, "Did you mean 'max_age'"),
        ({"topics": {"/a": {"methd": "last"}}}, "Did you mean 'method'"),
        ({"topics": {"/a": {"method": "x"}}}, "resample.topics./a: method"),
        ({"topics": []}, "expected a table"),
    ],
)
def test_a_wrong_table_is_refused(change, words):
    with pytest.raises(ConfigurationError, match=words.replace("[", r"\[")):
        map_from_record({"resample": {**SOUND, **change}})


def test_a_column_has_its_own_rule_then_its_topics():
    record = {**SOUND, "topics": {"/a": {"max_age": 2.0}, "/a.x": {"method": "linear"}}}
    resample = map_from_record({"resample": record}).resample
    assert resample is not None
    assert resample.rule("/a.x", "/a", "") == Rule(method="linear", max_age=2 * 10**9)
    assert resample.rule("/b.x", "/b", "") == Rule(method="last", max_age=5 * 10**8)
    with pytest.raises(ConfigurationError, match="for how long"):
        ResampleMap(time="log").rule("/b.x", "/b", "")
    with pytest.raises(ConfigurationError, match="which time counts"):
        ResampleMap(max_age=1.0).clock("/b", "")
