"""Secrets do not leave the process in replies, log lines or markers."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_worker.wire.redaction import REDACTED, is_secret, redact

SECRET = "Xq7hTz0pLm93wVbNs2Rk"  # noqa: S105 - it opens nothing


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
        f"postgresql://user:{SECRET}@db.example/main",
        f"https://{SECRET.lower()}:{SECRET}@example.org/?a=1",
        f"redis://:{SECRET}@cache:6379/0",
        f"first sk-{SECRET} and then Bearer {SECRET} and password='{SECRET}'",
    ],
)
def test_secrets_are_removed(text: str) -> None:
    redacted = redact(text)
    assert SECRET not in redacted
    assert REDACTED in redacted
    assert redact(redacted) == redacted


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
        "mailto:someone@example.org",
        "KeyError: 'tokens'",
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


def test_what_surrounds_a_secret_stays() -> None:
    assert redact(f"call with api_key='{SECRET}' to /v1 failed") == (
        f"call with api_key='{REDACTED}' to /v1 failed"
    )
    assert redact(f"postgresql://user:{SECRET}@db/main") == f"postgresql://user:{REDACTED}@db/main"


@pytest.mark.parametrize(
    "name",
    ["key", "api_key", "API-KEY", "apikey", "lm.token", "client_secret", "Password", "passwd"],
)
def test_names_of_what_is_never_shown(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["", "keyboard", "tokens", "monkey", "max_tokens", "passwordless"])
def test_names_of_what_may_be_shown(name: str) -> None:
    assert not is_secret(name)


@given(st.text())
def test_any_text_can_be_redacted_twice(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    "unit",
    ["a.", "a+", "sk-", "sk-a", "bearer ", "token='", 'token="x', "a://", "a://b:", "x", "-"],
)
def test_the_time_grows_with_the_length_and_not_with_its_square(unit: str) -> None:
    """Messages come from anywhere and are redacted on the event loop."""

    def seconds(length: int) -> float:
        text = unit * (length // len(unit))
        begun = time.thread_time()  # of this thread alone, whatever else the machine does
        redact(text)
        return time.thread_time() - begun

    assert seconds(20_000) < 30 * seconds(2_000) + 0.1
