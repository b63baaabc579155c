from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_worker.errors import StartError
from snakepit_worker.flags import parse
from snakepit_worker.settings import HEARTBEAT_CONFIG, Option, Settings, options

ROWS = {row.name: row for row in options()}
FLAGS = [row for row in ROWS.values() if row.flag and not row.is_switch]
BOTH = [row for row in FLAGS if row.env]


def samples(row: Option) -> tuple[tuple[str, Any], tuple[str, Any]]:
    """Two values that are not the default, as text and as the setting."""
    if row.name == "values":
        return ("compatible", "compatible"), ("exact", "exact")
    if row.name == "archive_durability":
        return ("delayed", "delayed"), ("commit", "commit")
    if row.name == "tracebacks":
        return ("own", "own"), ("none", "none")
    if isinstance(row.default, tuple):
        return ("a.b, c", ("a.b", "c")), ("d", ("d",))
    if isinstance(row.default, int) or row.name == "max_workers":
        return ("7", 7), ("8", 8)
    return ("one:1", "one:1"), ("two:2", "two:2")


def setting(row: Option, argv: list[str], environ: dict[str, str]) -> object:
    return getattr(parse(argv, environ), row.name)


def heartbeat(config: object, *argv: str) -> dict[str, object]:
    """What a heartbeat configuration changes."""
    text = config if isinstance(config, str) else json.dumps(config)
    parsed, usual = parse(argv, {HEARTBEAT_CONFIG: text}), Settings()
    names = [name.removeprefix("heartbeat_") for name in ROWS if name.startswith("heartbeat_")]
    values = {name: getattr(parsed, f"heartbeat_{name}") for name in names}
    return {k: v for k, v in values.items() if v != getattr(usual, f"heartbeat_{k}")}


@pytest.mark.conforms(83)
def test_without_flags_and_environment_the_defaults_count() -> None:
    assert parse([], {}) == Settings()
    usual = Settings()
    assert (usual.port, usual.threads, usual.host_attempts) == (0, 10, 60)
    assert (usual.heartbeat_enabled, usual.heartbeat_dependent) == (True, True)
    times = (usual.heartbeat_interval_ms, usual.heartbeat_timeout_ms, usual.heartbeat_max_missed)
    assert times == (2_000, 10_000, 3)


@pytest.mark.parametrize("row", FLAGS, ids=lambda row: row.name)
def test_a_flag_sets_its_setting(row: Option) -> None:
    (text, value), (last_text, last) = samples(row)
    assert row.flag is not None
    assert setting(row, [row.flag, text], {}) == value
    assert setting(row, [f"{row.flag}={text}"], {}) == value
    if not isinstance(row.default, tuple):
        assert setting(row, [row.flag, text, row.flag, last_text], {}) == last


@pytest.mark.parametrize("row", BOTH, ids=lambda row: row.name)
def test_flag_over_environment_over_default(row: Option) -> None:
    (text, value), (other_text, other) = samples(row)
    assert row.flag is not None
    for variable in row.env:
        assert setting(row, [], {variable: text}) == value
        assert setting(row, [row.flag, other_text], {variable: text}) == other
        assert setting(row, [], {variable: ""}) == row.default


def test_the_first_variable_that_is_set_wins() -> None:
    both = {"SNAKEPIT_GRPC_ADDRESS": "first:1", "SNAKEPIT_ELIXIR_ADDRESS": "second:2"}
    assert parse([], both).elixir_address == "first:1"
    del both["SNAKEPIT_GRPC_ADDRESS"]
    assert parse([], both).elixir_address == "second:2"


def test_adapters_are_repeated_or_separated_by_commas() -> None:
    argv = ["--adapter", "one, two", "--port", "0", "--adapter", "three"]
    assert parse(argv, {}).adapters == ("one", "two", "three")
    assert parse(argv, {"SNAKEPIT_WORKER_ADAPTER": "four"}).adapters == ("one", "two", "three")


@pytest.mark.parametrize(
    ("argv", "field", "value"),
    [
        (["--heartbeat-enabled"], "heartbeat_enabled", True),
        (["--heartbeat-dependent"], "heartbeat_dependent", True),
        (["--heartbeat-independent"], "heartbeat_dependent", False),
        (["--heartbeat-dependent", "--heartbeat-independent"], "heartbeat_dependent", False),
        (["--heartbeat-independent", "--heartbeat-dependent"], "heartbeat_dependent", True),
        (["--thread-safety-check"], "thread_safety_check", True),
        (["--health-check"], "health_check", True),
    ],
)
def test_switches(argv: list[str], field: str, value: bool) -> None:  # noqa: FBT001
    assert getattr(parse(argv, {}), field) is value


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        *(("SNAKEPIT_LOG_LEVEL", t, "log_level", t.lower()) for t in ("DEBUG", "none", "Warning")),
        *(("SNAKEPIT_LOG_LEVEL", t, "log_level", "error") for t in ("trace", "7", "warn")),
        *(("SNAKEPIT_PROCESS_GROUP", t, "process_group", True) for t in ("1", "true", "YES", "On")),
        *(("SNAKEPIT_PROCESS_GROUP", t, "process_group", False) for t in ("0", "no", "maybe")),
        ("SNAKEPIT_READY_FILE", "/tmp/Ready", "ready_file", "/tmp/Ready"),  # noqa: S108 - a name
        ("SNAKEPIT_THREAD_SENSITIVE", "numpy, A.load", "thread_sensitive", ("numpy", "A.load")),
        ("SNAKEPIT_UNSERIALIZABLE_DETAIL", "TYPE", "unserializable_detail", "type"),
        ("SNAKEPIT_UNSERIALIZABLE_DETAIL", "everything", "unserializable_detail", "none"),
        ("SNAKEPIT_UNSERIALIZABLE_REPR_MAXLEN", " 200 ", "unserializable_repr_maxlen", 200),
        ("SNAKEPIT_UNSERIALIZABLE_REPR_MAXLEN", "9999", "unserializable_repr_maxlen", 2000),
        ("SNAKEPIT_UNSERIALIZABLE_REPR_MAXLEN", "-5", "unserializable_repr_maxlen", 0),
        ("SNAKEPIT_UNSERIALIZABLE_REPR_MAXLEN", "long", "unserializable_repr_maxlen", 500),
        ("SNAKEPIT_TOLIST_MAX_ELEMENTS", "0", "tolist_max_elements", 0),
        ("SNAKEPIT_TOLIST_MAX_ELEMENTS", "few", "tolist_max_elements", 1_000_000),
        ("SNAKEPIT_TOLIST_MAX_ELEMENTS", "-1", "tolist_max_elements", 0),
        ("SNAKEPIT_WORKER_MAX_WORKERS", "0", "threads", 10),
        ("SNAKEPIT_WORKER_MAX_WORKERS", "32", "threads", 32),
        ("SNAKEPIT_WORKER_TRACEBACKS", "own", "tracebacks", "own"),
        ("SNAKEPIT_WORKER_TRACEBACKS", "some", "tracebacks", "full"),
    ],
)  # fmt: skip
def test_the_environment_never_stops_a_worker(
    variable: str, text: str, field: str, value: object
) -> None:
    assert getattr(parse([], {variable: text}), field) == value


def test_what_is_ignored_is_said() -> None:
    said: list[str] = []
    environ = {"SNAKEPIT_WORKER_MAX_WORKERS": "many", HEARTBEAT_CONFIG: '{"interval_ms": "often"}'}
    parse(["--mode", "threaded", "stray"], environ, warn=said.append)
    assert [text for text in said if "--mode threaded stray" in text]
    assert [text for text in said if "SNAKEPIT_WORKER_MAX_WORKERS" in text and "many" in text]
    assert [text for text in said if "interval_ms" in text]
    assert len(said) == 3


@pytest.mark.parametrize(
    ("variable", "text", "words"),
    [
        ("SNAKEPIT_WORKER_MAX_WORKERS", "x", ": expected a whole number from 0 to 1024"),
        ("SNAKEPIT_WORKER_MAX_WORKERS", "2000", ": expected a whole number from 0 to 1024"),
        ("SNAKEPIT_WORKER_VALUES", "foo", ": expected exact or compatible"),
        ("SNAKEPIT_WORKER_TRACEBACKS", "some", ": expected full or own or none"),
        ("SNAKEPIT_UNSERIALIZABLE_DETAIL", "all", ": expected none or type or repr_"),
        ("SNAKEPIT_GRPC_ADDRESS", "nowhere", ": expected HOST:PORT"),
        ("SNAKEPIT_PROCESS_GROUP", "perhaps", ": expected one of 1/true/yes/on/"),
        ("SNAKEPIT_OTEL_ENDPOINT", "garbage", ": expected http://HOST:PORT"),
        ("SNAKEPIT_TOLIST_MAX_ELEMENTS", "-1", "out of range; 0 is used"),
        ("SNAKEPIT_TOLIST_MAX_ELEMENTS", "few", ": expected a whole number from 0"),
        ("SNAKEPIT_UNSERIALIZABLE_REPR_MAXLEN", "99999", "out of range; 2000 is used"),
        ("SNAKEPIT_LOG_LEVEL", "loud", "unknown; error is used"),
    ],
)
def test_what_is_wrong_with_a_variable_is_said_in_the_words_of_the_flags(
    variable: str, text: str, words: str
) -> None:
    said: list[str] = []
    parse([], {variable: text}, warn=said.append)
    (line,) = said
    assert line.removeprefix("ignored ").startswith(f"{variable}={text!r}")
    assert words in line


@pytest.mark.parametrize("text", ["often", "-5", "null"])
def test_so_it_is_for_the_heartbeat_object(text: str) -> None:
    for key, least in (("interval_ms", 1), ("max_missed_heartbeats", 0)):
        said: list[str] = []
        value = text if text in {"-5", "null"} else f'"{text}"'
        parse([], {HEARTBEAT_CONFIG: f'{{"{key}": {value}}}'}, warn=said.append)
        (line,) = said
        assert line.startswith(f"ignored {key}=")
        assert f"expected a whole number from {least}" in line


def test_names_keep_their_case() -> None:
    environ = {"SNAKEPIT_SERVICE_NAME": "My.Service", "SNAKEPIT_INSTANCE_ID": "A1"}
    found = parse([], environ)
    assert (found.service_name, found.instance_id) == ("My.Service", "A1")


@pytest.mark.parametrize(
    "argv",
    [
        ["--max-workers", "-1"],
        ["--max-workers", "four"],
        ["--max-workers"],
        ["--port", "-1"],
        ["--port", "65536"],
        ["--values", "Exact!"],
        ["--tracebacks", "some"],
        ["--heartbeat-interval-ms", "0"],
        ["--grace-ms", "-1"],
        ["--health-check=maybe"],
        ["--adapter"],
    ],
)
def test_a_wrong_flag_is_wrong_usage(argv: list[str]) -> None:
    with pytest.raises(StartError) as caught:
        parse(argv, {})
    assert caught.value.exit_status == 2
    assert argv[0].partition("=")[0] in str(caught.value)


def test_flags_are_not_abbreviated() -> None:
    assert parse(["--max", "3", "--heartbeat-interval", "5", "--adapt", "x"], {}) == Settings()


JUNK = st.lists(
    st.one_of(
        st.from_regex(r"--x-[a-z]{1,8}(=[^\0]{0,5})?", fullmatch=True),
        st.text(st.characters(exclude_characters="-"), max_size=5),
    ),
    max_size=5,
)


@pytest.mark.conforms(1)
@given(JUNK, JUNK)
def test_unknown_arguments_change_nothing(before: list[str], after: list[str]) -> None:
    argv = [*before, "--adapter", "dspy", "--max-workers", "4", *after, "--port", "0", *before]
    assert parse(argv, {}) == Settings(adapters=("dspy",), max_workers=4)


@pytest.mark.conforms(83)
@pytest.mark.parametrize(
    ("config", "changed"),
    [
        ({}, {}),
        ({"interval_ms": 5, "timeout_ms": 6}, {"interval_ms": 5, "timeout_ms": 6}),
        ({"max_missed_heartbeats": 9}, {"max_missed": 9}),
        ({"maxMissedHeartbeats": 9, "intervalMs": 7}, {"max_missed": 9, "interval_ms": 7}),
        ({"initial_delay_ms": 1, "jitter_ms": 2}, {"initial_delay_ms": 1, "jitter_ms": 2}),
        ({"enabled": False, "dependent": False}, {"enabled": False, "dependent": False}),
        ({"enabled": "false", "dependent": "OFF"}, {"enabled": False, "dependent": False}),
        ({"enabled": "perhaps"}, {}),
        ({"enabled": None}, {}),
        ({"interval_ms": "250"}, {"interval_ms": 250}),
        ({"interval_ms": "often", "timeout_ms": 3}, {"timeout_ms": 3}),
        ({"interval_ms": None, "timeout_ms": [1]}, {}),
        ({"interval_ms": True}, {}),
        ({"interval_ms": -5}, {}),
        ({"max_missed_heartbeats": -1}, {}),
        ({"unknown": 1, "worker_id": "x", "": 0}, {}),
        ("not JSON", {}),
        ("[1, 2]", {}),
        ("null", {}),
        ('{"interval_ms": 5', {}),
        ("", {}),
        ("\udcff", {}),
    ],
)
def test_the_host_s_heartbeat_object(config: object, changed: dict[str, object]) -> None:
    assert heartbeat(config) == changed


@pytest.mark.conforms(83)
def test_the_heartbeat_object_beats_the_flags() -> None:
    flags = ("--heartbeat-interval-ms", "11", "--heartbeat-timeout-ms", "12")
    assert heartbeat({"interval_ms": 21}, *flags) == {"interval_ms": 21, "timeout_ms": 12}
    assert heartbeat({"enabled": False}, "--heartbeat-enabled") == {"enabled": False}
    assert heartbeat({"dependent": True}, "--heartbeat-independent") == {}
    assert heartbeat("broken", "--heartbeat-independent") == {"dependent": False}


@pytest.mark.conforms(72)
@pytest.mark.parametrize(
    ("ready_file", "worker_id"),
    [
        ("/tmp/snakepit_ready_default_worker_1_1234", "default_worker_1"),  # noqa: S108 - a name
        ("snakepit_ready_pool.a-b_7_99", "pool.a-b_7"),
        ("snakepit_ready_1_2", "1"),
        ("snakepit_ready_noint", None),
        ("elsewhere/ready", None),
        (None, None),
    ],
)
def test_the_name_of_the_file_tells_the_worker_s(
    ready_file: str | None, worker_id: str | None
) -> None:
    assert Settings(ready_file=ready_file).worker_id == worker_id


def test_help_explains_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--help"], {})
    assert caught.value.code == 0
    text = capsys.readouterr().out
    words = re.sub(r"\s", "", text)  # lines are broken anywhere
    for row in ROWS.values():
        if row.flag is None and not row.env:
            continue  # only in the heartbeat object
        assert re.sub(r"\s", "", row.help) in words, row.name
        for name in (row.flag, row.off_flag, *row.env):
            assert name is None or name in text
        if not row.is_switch and row.flag and row.default not in {None, "", ()}:
            assert re.sub(r"\s", "", f"default {row.default}") in words, row.name
    assert HEARTBEAT_CONFIG in text
    assert "doctor" in text


def test_every_setting_is_explained_and_named_once() -> None:
    names = [name for row in ROWS.values() for name in (row.flag, row.off_flag, *row.env) if name]
    assert len(names) == len(set(names))
    assert [row.name for row in ROWS.values() if not row.help] == []
    assert all(name.startswith("SNAKEPIT_") for row in ROWS.values() for name in row.env)
