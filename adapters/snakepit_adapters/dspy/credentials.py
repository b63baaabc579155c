"""Keys that the operator declares, and that callers name without seeing them.

Does not import DSPy: a wrong declaration ends the worker before the framework is loaded.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec

from snakepit_adapters.dspy.refusing import invalid
from snakepit_worker.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["VARIABLE", "Credential", "Credentials", "archived", "is_web_address", "restored"]

VARIABLE: Final = "SNAKEPIT_DSPY_CREDENTIALS"
"""A JSON object of declarations by name, or ``@`` and the path of a file with one."""

_NAME_IN_RECIPES: Final = "declared_as"
"""An archive takes whatever is called a credential for a secret; this is only its name."""

_RESERVED: Final = frozenset(
    (
        "api_base",
        "api_key",
        "async_engine",
        "base_url",
        "cache",
        "callbacks",
        "custom_llm_provider",
        "engine",
        "model",
        "model_type",
        "num_retries",
        "rollout_id",
    )
)
"""Arguments of a language model that an operator's options must not replace."""


class _Declaration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    provider: str
    api_base: str | None = None
    api_key: str | None = None
    env: str | None = None
    file: str | None = None
    options: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Credential:
    """What gives access to one provider at one address.

    Attributes:
        name: How callers call it.
        provider: The only provider that it is good for.
        api_base: The only address that it is sent to; the provider's own when ``None``.
        api_key: The key, unless the options say how to get in.
        options: What else the provider wants to know, such as ``api_version``.
    """

    name: str
    provider: str
    api_base: str | None = None
    api_key: str | None = field(default=None, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """All texts that must not be shown."""
        key = () if self.api_key is None else (self.api_key,)
        return (*key, *_texts(self.options))

    def check(self, provider: str, api_base: str | None) -> None:
        """See that it is used for what it was declared for.

        Args:
            provider: Of the model that the caller wants.
            api_base: The address that the caller names, if one.

        Raises:
            InvalidArgument: When it is for another provider or address.
        """
        if provider != self.provider:
            text = f"the one named {self.name!r} is for {self.provider}, not for {provider}"
            raise invalid("credential", text)
        if api_base is not None and api_base.rstrip("/") != (self.api_base or "").rstrip("/"):
            text = f"the credential {self.name!r} is not for this address; leave it out"
            raise invalid("api_base", text)


class Credentials:
    """The operator's declarations.

    Args:
        declared: What there is.
    """

    def __init__(self, *declared: Credential) -> None:
        self._by_name = MappingProxyType({credential.name: credential for credential in declared})

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Credentials:
        """Read the declarations, and the keys that they point to.

        Args:
            environment: Variables by name.

        Raises:
            StartError: When a declaration is wrong; the message names the field and no value.
        """
        text = environment.get(VARIABLE, "")
        if text.startswith("@"):
            text = _read(Path(text[1:]), VARIABLE)
        if not text.strip():
            return cls()
        try:
            declarations = msgspec.json.decode(text, type=dict[str, _Declaration])
        except msgspec.DecodeError as error:
            raise StartError(f"{VARIABLE}: {_located(text, error)}") from None
        return cls(*(_credential(name, given, environment) for name, given in declarations.items()))

    def get(self, name: str) -> Credential:
        """The credential of this name.

        Raises:
            InvalidArgument: When the operator declared none.
        """
        credential = self._by_name.get(name)
        if credential is None:
            known = ", ".join(sorted(self._by_name)) or "none"
            text = f"the operator declared no credential {name!r}; declared are: {known}"
            raise invalid("credential", text)
        return credential


def archived(described: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe of what uses a credential.

    Args:
        described: Its settings, with the name of the credential as ``credential``.
    """
    recipe = dict(described)
    recipe[_NAME_IN_RECIPES] = recipe.pop("credential")
    return recipe


def restored(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in a recipe.

    Args:
        recipe: What ``archived`` gave, or a recipe from before there were credentials.
    """
    described = dict(recipe)
    described["credential"] = described.pop(_NAME_IN_RECIPES, None)
    return described


def is_web_address(address: str) -> bool:
    """Whether this is an http or https address that may be shown.

    Callers and logs see addresses; a password or a token inside would be seen, too.

    Args:
        address: Any text.
    """
    try:
        parts = urlsplit(address)
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return False
    return bool(fits) and "@" not in parts.netloc and not parts.query and not parts.fragment


def _credential(name: str, declaration: _Declaration, environment: Mapping[str, str]) -> Credential:
    path = f"{VARIABLE}: {name}"
    if not name.isprintable() or not name.strip():
        raise StartError(f"{VARIABLE}: expected printable names, got {name!r}")
    if not declaration.provider or "/" in declaration.provider:
        raise StartError(f"{path}.provider: expected a provider such as openai")
    if declaration.api_base is not None and not is_web_address(declaration.api_base):
        raise StartError(
            f"{path}.api_base: expected a http or https address without credentials or query"
        )
    if reserved := sorted(_RESERVED.intersection(declaration.options)):
        raise StartError(f"{path}.options.{reserved[0]}: not an option of a credential")
    return Credential(
        name,
        declaration.provider,
        declaration.api_base,
        _key(path, declaration, environment),
        declaration.options,
    )


def _key(path: str, declaration: _Declaration, environment: Mapping[str, str]) -> str | None:
    sources = {
        source: value
        for source in ("api_key", "env", "file")
        if (value := getattr(declaration, source)) is not None
    }
    if len(sources) != 1:
        if not sources and declaration.options:
            return None
        raise StartError(f"{path}: expected one of api_key, env and file, got {len(sources)}")
    ((source, value),) = sources.items()
    if source == "env":
        found = environment.get(value, "")
    elif source == "file":
        found = _read(Path(value), f"{path}.file")
    else:
        found = value
    key = found.strip()
    if not key:
        what = {"api_key": "the key", "env": f"the variable {value}", "file": f"{value}"}[source]
        raise StartError(f"{path}.{source}: {what} is empty")
    return key


def _read(path: Path, where: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise StartError(f"{where}: {path} cannot be read: {reason}") from None


def _located(text: str, error: msgspec.DecodeError) -> str:
    """The fault with the name of the declaration, which msgspec writes as ``[...]``."""
    try:
        declarations = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        return str(error)
    for name, raw in declarations.items():
        try:
            msgspec.json.decode(raw, type=_Declaration)
        except msgspec.DecodeError as fault:
            return f"{name}: {fault}"
    return str(error)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
