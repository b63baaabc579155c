"""Secrets do not leave the process in replies, log lines, spans, events or markers."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_worker.wire.redaction import REDACTED, is_secret, redact, redact_value
from tests.conftest import name_of

# Nothing here opens anything.  Most is put together from parts, because scanners of repositories
# know the same shapes.
SECRET = "Xq7hTz0pLm93wVbNs2Rk"  # noqa: S105
LONG = f"{SECRET}4cDfGhJk1M"
UPPER = "Q7ZT0PLM93WVBNS2"
KEY = f"-----BEGIN RSA {'PRIVATE'} KEY-----\nProc-Type: 4,ENCRYPTED\n\n{SECRET}\n{SECRET}"
KEY_END = f"\n-----END RSA {'PRIVATE'} KEY-----"
JWT = f"eyJ{SECRET}.eyJ{SECRET}.{SECRET}"


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {SECRET}",
        f"authorization: bearer {SECRET}.{SECRET}",
        f"BEARER\t{SECRET}==",
        f"sk-{SECRET}",
        f"sk-proj-{SECRET}",
        f"sk-ant-api03-{SECRET}-_x",
        f"key=sk-{SECRET}, more",
        f"api_key='{SECRET}'",
        f'api-key: "{SECRET}"',
        f"apikey = '{SECRET}'",
        f"API KEY: '{SECRET}'",
        f'{{"api_key": "{SECRET}"}}',
        f"{{'token': '{SECRET}'}}",
        f"Token='{SECRET}'",
        f"my_secret: '{SECRET}'",
        f'client_secret="{SECRET}"',
        f"PASSWORD: '{SECRET}'",
        f"password='with spaces {SECRET}'",
        f"password=b'{SECRET}'",
        f"secret: 'cut off {SECRET}",
        f'{{"token": "cut off {SECRET}',
        f'"{{\\"token\\": \\"within a text {SECRET}\\"}}"',
        f"'Cookie': 'session={SECRET}'",
        f'{{"authorization": "{SECRET}"}}',
        f"headers = {{'Authorization': 'Basic {SECRET}'}}",
        f"Authorization: Basic {SECRET}==",
        f"proxy-authorization: Digest {SECRET}",
        f"OPENAI_API_KEY={SECRET}",
        f"aws_secret_access_key = {SECRET}",
        f"host=db user=me password={SECRET} dbname=main",
        f"UID=sa;PWD={SECRET};Database=main",
        f"postgresql://user:{SECRET}@db.example/main",
        f"https://{SECRET.lower()}:{SECRET}@example.org/?a=1",
        f"redis://:{SECRET}@cache:6379/0",
        f"amqp://user:{SECRET}'+$@queue:5672/%2f",
        f"https://example.org/v1?api_key={SECRET}&page=2",
        f"GET /v1/models?page=2&access_token={SECRET} 401",
        f"https://s3.example.org/a?X-Amz-Signature={SECRET}#top",
        f"https://example.org/?key={SECRET}",
        *(f"not {prefix}{LONG}!" for prefix in ("hf_", "gsk_", "glpat-", "github_pat_")),
        *(f"{kind}_{LONG}x" for kind in ("ghp", "gho", "ghu", "ghs", "ghr")),
        f"AIza{LONG}_-abcde",
        *(f"xox{kind}-1234567890-{SECRET}" for kind in "abeprs"),
        f"({JWT})",
        f"cut off: {JWT[: JWT.rindex('.') - 3]}",
        KEY + KEY_END,
        KEY,
        f"{KEY[:-3]}…",
        f"key = {KEY!r} at line 7",
        f"first sk-{SECRET} and then Bearer {SECRET} and password='{SECRET}'",
    ],
    ids=name_of,
)
def test_secrets_are_removed(text: str) -> None:
    redacted = redact(text)
    assert SECRET not in redacted
    assert REDACTED in redacted
    assert redact(redacted) == redacted


@pytest.mark.parametrize("kind", ["AKIA", "ASIA"])
def test_key_ids_of_a_cloud_are_removed(kind: str) -> None:
    assert redact(f"{kind}{UPPER}, {kind}{UPPER}X") == f"{REDACTED}, {kind}{UPPER}X"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sk-short",
        "risk-management and task-1234567890 and ask-me-anything-please",
        "the password is wrong",
        "token: 42",
        "max_tokens=100",
        "http://example.org:8080/path?user=a@b",
        "http://localhost:8080/a?sort=name&tokens=7",
        '{"url":"http://a:80","mail":"me@example.org"}',
        "mailto:someone@example.org",
        "KeyError: 'tokens'",
        "d41d8cd98f00b204e9800998ecf8427e",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        "2c5ea4c0-4067-11e9-8bad-9b1deb4d3b7d",
        "/home/me/.cache/hf_hub/models--gpt2/snapshots/11c5a3d5811f50298f278a704980280950aedb10",
        'File "/opt/app/tokens.py", line 12, in read_secret',
        "    return Client(api_key=api_key, token=self.token, password=os.environ[name])",
        "api_key = settings.api_key",
        "the secret of success: work",
        "bearer",
        "basic authorization is not enough",
        "xoxo-and-other-greetings",
        "eyJust a word. and another. and more",
        "ghosts_are_not_tokens ghp_short AKIA ASIA AIza hf_transfer_is_installed",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
        "Expected token: EOF, got NAME",
        "keyboard: 'qwertz'",
    ],
    ids=name_of,
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


def test_what_surrounds_a_secret_stays() -> None:
    assert redact(f"call with api_key='{SECRET}' to /v1 failed") == (
        f"call with api_key='{REDACTED}' to /v1 failed"
    )
    assert redact(f"postgresql://user:{SECRET}@db/main") == f"postgresql://user:{REDACTED}@db/main"
    assert redact(f"/a?key={SECRET}&b=1 failed") == f"/a?key={REDACTED}&b=1 failed"
    assert redact(f"a {KEY}{KEY_END} b") == f"a {REDACTED} b"
    assert redact(f"'{KEY}' and 'more'") == f"'{REDACTED}' and 'more'"
    assert redact(f"{KEY}\n\nThe above exception") == f"{REDACTED}\n\nThe above exception"


@pytest.mark.parametrize("limit", [1, 10, 20, 30, 40])
def test_a_limit_cuts_no_secret_in_half(limit: int) -> None:
    text = f"api_key='{SECRET}' " * 10
    assert len(redact(text, limit)) == limit
    assert SECRET[:4] not in redact(text, limit)
    assert redact("x" * limit, limit) == "x" * limit


@pytest.mark.parametrize(
    "name",
    [
        *("key", "api_key", "API-KEY", "apikey", "lm.token", "client_secret", "Password", "passwd"),
        *("apiKey", "accessToken", "clientSecret", "x-api-key", "AWS_SECRET_ACCESS_KEY"),
        *("set-cookie", "Proxy-Authorization", "credentials", "passphrase", f"{'x' * 999}_key"),
    ],
    ids=name_of,
)
def test_names_of_what_is_never_shown(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "keyboard",
        "tokens",
        "monkey",
        "Monkey",
        "max_tokens",
        "passwordless",
        "keyName",
        "hotkey",
    ],
)
def test_names_of_what_may_be_shown(name: str) -> None:
    assert not is_secret(name)


@given(st.text())
def test_any_text_can_be_redacted_twice(text: str) -> None:
    assert redact(redact(text)) == redact(text)


class Config:
    def __repr__(self) -> str:
        return f"Config(api_key={SECRET!r})"


class Unreadable:
    def __str__(self) -> str:
        raise RuntimeError(SECRET)


@pytest.mark.parametrize(
    "value",
    [
        f"sk-{SECRET}",
        {"token": SECRET},
        {"token": [SECRET]},
        {"a": [{"b": ({"Password": SECRET},)}]},
        {"lm": {"clientSecret": {"value": SECRET}}},
        [f"Bearer {SECRET}"],
        {f"sk-{SECRET}": 1},
        {("sk", f"sk-{SECRET}"): 1},
        {f"Bearer {SECRET}"},
        Config(),
        [Config()],
        Unreadable(),
        f"token='{SECRET}'".encode(),
        SimpleNamespace(password=SECRET),
        f"{'x' * 4_080} sk-{SECRET}",
        {"a": {"b": {"c": {"d": {"e": {"f": {"g": SECRET}}}}}}},
    ],
    ids=name_of,
)
def test_values_lose_their_secrets_wherever_they_are(value: Any) -> None:
    assert SECRET[:6] not in repr(redact_value(value))


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        1 << 70,
        1.5,
        "tea",
        {"token": None, "tokens": 7, "a": [{"b": "c"}]},
        datetime(2026, 1, 2, tzinfo=UTC),
        uuid.UUID(int=5),
        {1: "one"},
    ],
    ids=name_of,
)
def test_other_values_stay_as_they_are(value: object) -> None:
    assert redact_value(value) == value


def test_of_much_only_a_part_is_kept() -> None:
    assert redact_value("x" * 10_000) == "x" * 4_096
    assert redact_value(list(range(1_000))) == list(range(200))
    assert redact_value({"a": {"b": 1}, "c": [1, 2]}, depth=1) == {"a": "1 entries", "c": "2 items"}
    endless: list[object] = []
    endless.append(endless)
    assert "1 items" in repr(redact_value(endless))


UNITS = [
    *("a.", "a+", "sk-", "sk-a", "sk-a---------", "bearer ", "x", "-", "\\", "eyJ", "eyJaaaaaaaa."),
    *("token='", 'token="x', 'token="\\', 'token:\\"', "token=", "token=a", "password: 1 "),
    *("api key=", "a://", "a://b:", "a://b:c", "a.b://", "&a_", "&a.", "?a.a.key=", "&key="),
    *("authorization: basic ", "ghp_", "github_pat_", "glpat-", "AKIA", "AIza", "hf_a", "xoxb-"),
    *("-----BEGIN A ", f"-----BEGIN {'PRIVATE'} KEY-----"),
]
MARKS = " -----begin :// key= authorization bearer token sk- ghp_ glpat- akia aiza hf_ xox eyj"
"""Without them most patterns are not even tried."""


def seconds(text: str) -> float:
    begun = time.thread_time()  # of this thread alone, whatever else the machine does
    redact(text)
    return time.thread_time() - begun


@pytest.mark.parametrize("unit", UNITS)
def test_the_time_grows_with_the_length_and_not_with_its_square(unit: str) -> None:
    """Messages come from anywhere and are redacted on the event loop."""
    short, long = (unit * (length // len(unit)) + MARKS for length in (10_000, 100_000))
    assert seconds(long) < 30 * seconds(short) + 0.1


def test_a_megabyte_is_redacted_in_reasonable_time() -> None:
    """It takes half a second; a pattern that tries again at each place would take hours."""
    share = 1_000_000 // len(UNITS)
    assert seconds("".join(unit * (share // len(unit)) for unit in UNITS) + MARKS) < 20
