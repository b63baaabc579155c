"""DSPy's classes by their own names, as the older adapter had them."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final

import msgspec

from snakepit_adapters.dspy.arguments import Generation, ProgramSpec
from snakepit_adapters.dspy.refusing import invalid
from snakepit_adapters.dspy.tools.held import MODULE, keep, leased
from snakepit_adapters.dspy.tools.older_programs import inputs_of, signature_named
from snakepit_adapters.dspy.tools.programs import built
from snakepit_worker import CallContext, tool
from snakepit_worker.errors import PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OlderCallTools"]

_STORED: Final = "stored."
_PACKAGE: Final = "dspy."
_CALLS: Final = ("__call__", "forward", "acall", "aforward")
_METHODS: Final = (*_CALLS, "dump_state", "load_state")
_PARTS: Final = ("signature", "tools", "instructions")
"""Arguments of a class that are no options of it."""


class OlderCallTools:
    """Making and calling DSPy's modules by path, and looking at its classes."""

    @tool
    async def call_dspy(
        self,
        module_path: str,
        function_name: str,
        ctx: CallContext,
        args: list[Any] | None = None,
        kwargs: dict[str, Any] | str | None = None,
    ) -> dict[str, Any]:
        """Make one of DSPy's modules, or call one that was made; `dspy.create` can do more.

        With the path "dspy.CLASS" the function is "__init__", the class one that takes a signature,
        and the arguments those of `dspy.create`.  With the path "stored.ID" it is "__call__",
        "dump_state" or "load_state".  Nothing else of DSPy, and nothing outside of it, can be
        reached.

        Args:
            module_path: The path.
            function_name: The function.
            ctx: The call.
            args: Arguments by position; a class takes its signature so.
            kwargs: Arguments by name, or the same as JSON text.

        Returns:
            "instance_id", "class_name" and "type" of what was made, or the "result" and the "type".
        """
        given = inputs_of(kwargs or {}, "kwargs")
        if module_path.startswith(_STORED):
            name = module_path.removeprefix(_STORED)
            result = await _method(ctx, name, function_name, args or [], given)
            return {"success": True, "result": result, "type": "method"}
        class_name = module_path.removeprefix(_PACKAGE)
        if function_name != "__init__" or class_name not in _classes():
            raise PermissionDenied(
                f"{module_path}.{function_name} cannot be called",
                details={"classes": _classes(), "methods": list(_METHODS)},
                help="make a class with __init__, and call it as stored.ID; settings are those of"
                " dspy.configure_lm",
            )
        spec = _spec(ctx, class_name, args or [], given)
        name = f"{class_name.lower()}_{secrets.token_hex(4)}"
        keep(ctx, await built(ctx, spec), name)
        made = {"instance_id": name, "type": "constructor", "class_name": class_name}
        return {"success": True, **made}

    @tool
    def discover_dspy_schema(self, module_path: str = "dspy") -> dict[str, Any]:
        """Describe the public classes and functions of DSPy or of one of its packages.

        Args:
            module_path: "dspy", or a package in it such as "dspy.teleprompt".

        Returns:
            The "schema" by name, with type, docstring, module, and the methods of classes with
            their parameters; and how many there are.
        """
        from snakepit_adapters.dspy.discovery import discover

        schema = discover(module_path)
        return {
            "success": True,
            "schema": schema,
            "module_path": module_path,
            "discovered_count": len(schema),
        }


def _classes() -> list[str]:
    """The modules that take a signature and need no other program."""
    import dspy

    from snakepit_adapters.dspy.modules import KINDS

    return [name for name, kind in KINDS.items() if kind.signature and hasattr(dspy, name)]


def _spec(
    ctx: CallContext, class_name: str, args: list[Any], given: Mapping[str, Any]
) -> ProgramSpec:
    from snakepit_adapters.dspy.modules import KINDS

    parts = {name: value for name, value in given.items() if name in _PARTS}
    if len(args) > 1 or (args and "signature" in parts):
        raise invalid("args", "expected the signature, and everything else in kwargs")
    if args:
        parts["signature"] = args[0]
    if isinstance(parts.get("signature"), str):
        parts["signature"], instructions = signature_named(ctx, parts["signature"])
        if instructions is not None:
            parts.setdefault("instructions", instructions)
        parts["signature"] = msgspec.to_builtins(parts["signature"])
    options = {name: value for name, value in given.items() if name not in _PARTS}
    # The simplest modules have no options but those of their calls.
    place = "config" if KINDS[class_name].one_predictor else "options"
    try:
        if place == "config":
            msgspec.convert(options, Generation)
        more = {place: options} if options else {}
        return msgspec.convert({"module": class_name, **parts, **more}, ProgramSpec)
    except msgspec.ValidationError as error:
        raise invalid("kwargs", str(error)) from None


async def _method(
    ctx: CallContext, name: str, method: str, args: list[Any], given: dict[str, Any]
) -> Any:  # noqa: ANN401 - whatever the method gives
    if method not in _METHODS:
        raise PermissionDenied(
            f"{method} of a module cannot be called", details={"methods": list(_METHODS)}
        )
    if args:
        raise invalid("args", "expected none: DSPy's modules take arguments by name")
    if method in _CALLS:
        async with leased(ctx.session, name, None) as (program, model):
            answer = await program.request(given, model).run(ctx.run_sync)
        return answer["outputs"]
    if method == "dump_state":
        async with ctx.session.lease(name, MODULE) as program:
            return await ctx.run_sync(program.dump_state)
    state = given.get("state")
    if set(given) != {"state"} or not isinstance(state, dict):
        raise invalid("kwargs", "expected the state, as an object")
    async with ctx.session.lease(name, MODULE, exclusive=True) as program:
        await ctx.run_sync(program.load_state, state)
    return None
