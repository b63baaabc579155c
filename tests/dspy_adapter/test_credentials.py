"""What the operator declares, and what callers may do with it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from snakepit_adapters.dspy.credentials import VARIABLE, Credential, Credentials
from snakepit_worker.errors import InvalidArgument, StartError

if TYPE_CHECKING:
    from pathlib import Path

KEY = "operators-key-4711"
ADDRESS = "https://llm.example.org/v1"


def declared(text: str | dict[str, Any], **variables: str) -> Credentials:
    given = text if isinstance(text, str) else json.dumps(text)
    return Credentials.from_environment({VARIABLE: given, **variables})


@pytest.mark.parametrize("environment", [{}, {VARIABLE: ""}, {VARIABLE: " {} "}])
def test_nothing_has_to_be_declared(environment: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument, match="declared are: none"):
        Credentials.from_environment(environment).get("shared")


def test_a_key_comes_from_the_declaration_a_variable_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}-c\n")
    credentials = declared(
        {
            "a": {"provider": "openai", "api_key": f"{KEY}-a"},
            "b": {"provider": "openai", "env": "THE_KEY"},
            "c": {"provider": "openai", "file": str(file)},
        },
        THE_KEY=f"{KEY}-b",
    )
    for name in "abc":
        assert credentials.get(name).api_key == f"{KEY}-{name}"


def test_the_declaration_may_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "credentials.json"
    file.write_text(json.dumps({"shared": {"provider": "groq", "api_key": KEY}}))
    assert declared(f"@{file}").get("shared").provider == "groq"


def test_options_can_stand_in_for_a_key() -> None:
    options = {"vertex_project": "a-project", "vertex_credentials": {"private_key": KEY}}
    credential = declared({"cloud": {"provider": "vertex_ai", "options": options}}).get("cloud")
    assert credential.api_key is None
    assert KEY in credential.secrets


def test_a_key_is_not_in_what_python_shows() -> None:
    credential = declared({"shared": {"provider": "openai", "api_key": KEY}}).get("shared")
    assert KEY not in repr(credential)
    assert credential.secrets == (KEY,)


@pytest.mark.parametrize(
    ("declaration", "message"),
    [
        ("{", "SNAKEPIT_DSPY_CREDENTIALS: "),
        ("[]", "SNAKEPIT_DSPY_CREDENTIALS: Expected `object`, got `array`"),
        ("@/nowhere/at/all", "/nowhere/at/all cannot be read: No such file or directory"),
        ({"shared": {"api_key": KEY}}, "shared: Object missing required field `provider`"),
        ({"shared": {"provider": "openai", "key": KEY}}, "shared: .*unknown field `key`"),
        ({"shared": {"provider": 1, "api_key": KEY}}, r"shared: Expected `str`.*\$.provider"),
        ({"shared": {"provider": "openai/gpt", "api_key": KEY}}, r"shared\.provider: expected"),
        ({"shared": {"provider": "openai"}}, "shared: expected one of api_key, env and file"),
        (
            {"shared": {"provider": "openai", "api_key": KEY, "env": "X"}},
            "shared: expected one of api_key, env and file, got 2",
        ),
        ({"shared": {"provider": "openai", "env": "X"}}, r"shared\.env: the variable X is empty"),
        ({"shared": {"provider": "openai", "api_key": " "}}, r"shared\.api_key: the key is empty"),
        ({"shared": {"provider": "openai", "file": "/no"}}, r"shared\.file: /no cannot be read"),
        (
            {"shared": {"provider": "openai", "api_key": KEY, "api_base": f"https://{KEY}@a.org"}},
            r"shared\.api_base: expected a http or https address",
        ),
        (
            {"shared": {"provider": "openai", "api_key": KEY, "options": {"cache": True}}},
            r"shared\.options\.cache: not an option",
        ),
        ({" ": {"provider": "openai", "api_key": KEY}}, "expected printable names"),
    ],
)
def test_a_wrong_declaration_is_a_start_error_without_the_key(
    declaration: str | dict[str, Any], message: str
) -> None:
    with pytest.raises(StartError, match=message) as raised:
        declared(declaration)
    assert KEY not in str(raised.value)
    assert raised.value.__cause__ is None


def test_it_is_for_its_provider_only() -> None:
    credential = Credential("shared", "openai", None, KEY)
    credential.check("openai", None)
    with pytest.raises(InvalidArgument, match="is for openai, not for groq") as raised:
        credential.check("groq", None)
    assert raised.value.violations[0].field == "credential"


@pytest.mark.parametrize("bound", [ADDRESS, None])
def test_it_is_for_its_address_only(bound: str | None) -> None:
    credential = Credential("shared", "openai", bound, KEY)
    if bound is not None:
        credential.check("openai", f"{bound}/")
    for address in ("https://evil.example.org/v1", f"{ADDRESS}/more", "http://llm.example.org/v1"):
        with pytest.raises(InvalidArgument, match="not for this address") as raised:
            credential.check("openai", address)
        assert raised.value.violations[0].field == "api_base"
        assert ADDRESS not in str(raised.value)
