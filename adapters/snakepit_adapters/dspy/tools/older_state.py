"""The state of a session under the names of the older adapter's tools."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from snakepit_adapters.dspy.refusing import invalid
from snakepit_adapters.dspy.tool_specs import ToolSpec, describe
from snakepit_adapters.dspy.tools.held import CORPUS, DEFAULT_LM, LM, MODULE, identity
from snakepit_adapters.dspy.tools.older_held import (
    KINDS,
    OBJECT,
    SIGNATURE,
    TOOL,
    find,
    names_of,
    store,
)
from snakepit_worker import CallContext, tool
from snakepit_worker.errors import NotFound

__all__ = ["OlderStateTools"]

_RESET: Final = (MODULE, *KINDS)


class OlderStateTools:
    """What there is, what is kept, and starting anew."""

    @tool
    async def ping(self, ctx: CallContext) -> dict[str, Any]:
        """Say that DSPy is there, and how much of it this session holds.

        Args:
            ctx: The call.
        """
        return {
            "status": "ok",
            "dspy_available": True,
            "programs_count": len(ctx.session.resources(MODULE)),
            "signatures_count": len(ctx.session.resources(SIGNATURE)),
            "stored_objects_count": len(ctx.session.resources(OBJECT)),
        }

    @tool
    def check_dspy(self) -> dict[str, Any]:
        """Show DSPy's version and its modules; `dspy.modules` describes them."""
        import dspy

        from snakepit_adapters.dspy.modules import KINDS as MODULES

        return {"available": True, "version": dspy.__version__, "modules": list(MODULES)}

    @tool
    async def store_object(
        self,
        name: str,
        object_type: str,
        data: Any,  # noqa: ANN401 - any JSON value
        ctx: CallContext,
    ) -> dict[str, Any]:
        """Keep a JSON value under a name.

        Args:
            name: The name; an object that has it already is replaced.
            object_type: A word of your own for what it is.
            data: The value.
            ctx: The call.
        """
        store(ctx.session, OBJECT, name, {"type": object_type, "data": data})
        return {"success": True, "name": name, "type": object_type}

    @tool
    async def retrieve_object(self, name: str, ctx: CallContext) -> dict[str, Any]:
        """Give back what was kept under a name.

        Args:
            name: The name.
            ctx: The call.

        Returns:
            The "type" and the "data".
        """
        found = find(ctx.session, OBJECT, name)
        if found is None:
            msg = f"no object {name!r} is stored in this session"
            raise NotFound(msg, details={"name": name})
        return {"success": True, "name": name, **found}

    @tool
    async def list_stored_objects(self, ctx: CallContext) -> dict[str, Any]:
        """List what is kept, by name and type.

        Args:
            ctx: The call.
        """
        objects = []
        for name in names_of(ctx.session, OBJECT):
            found = find(ctx.session, OBJECT, name)
            if found is not None:
                objects.append({"name": name, "type": found["type"]})
        return {"success": True, "objects": objects}

    @tool
    async def get_settings(self, ctx: CallContext) -> dict[str, Any]:
        """Show what programs of this session are called with.

        Args:
            ctx: The call.

        Returns:
            The language model named "default" as "lm", or null; the names of all as "lms"; those of
            the corpora as "rm".
        """
        try:
            resource = ctx.session.get(DEFAULT_LM, LM)
        except NotFound:
            lm = None
        else:
            lm = identity(resource) | resource.value.describe()
        return {
            "lm": lm,
            "lms": names_of(ctx.session, LM),
            "rm": names_of(ctx.session, CORPUS),
            "trace": None,
        }

    @tool
    async def get_stats(self, ctx: CallContext) -> dict[str, Any]:
        """Count what this session holds; `dspy.usage` counts what it has used.

        Args:
            ctx: The call.
        """
        import dspy

        lms = names_of(ctx.session, LM)
        return {
            "success": True,
            "stats": {
                "dspy_available": True,
                "dspy_version": dspy.__version__,
                "programs_count": len(ctx.session.resources(MODULE)),
                "signatures_count": len(ctx.session.resources(SIGNATURE)),
                "stored_objects_count": len(ctx.session.resources(OBJECT)),
                "programs": names_of(ctx.session, MODULE),
                "has_lm": bool(lms),
                "has_configured_lm": DEFAULT_LM in lms,
            },
        }

    @tool
    async def reset_state(self, ctx: CallContext) -> dict[str, Any]:
        """Let go of this session's programs, signatures, objects and registered tools.

        Language models and corpora stay; `session.close` lets go of everything.

        Args:
            ctx: The call.
        """
        gone = [resource for kind in _RESET for resource in ctx.session.resources(kind)]
        for resource in gone:
            ctx.session.release(resource.handle)
        return {"status": "reset", "released": len(gone)}

    @tool
    async def register_elixir_tool(  # noqa: PLR0913, PLR0917 - arguments come by name
        self,
        name: str,
        ctx: CallContext,
        function: str | None = None,
        description: str | None = None,
        parameters: list[dict[str, Any]] | None = None,
        exposed_to_python: bool = True,  # noqa: FBT001, FBT002
    ) -> dict[str, Any]:
        """Give an Elixir tool to the agents that `dspy.create_program` makes from now on.

        It has to be exposed to the session already; `dspy.react` takes tools directly.

        Args:
            name: What models call it; a tool that has the name already is replaced.
            ctx: The call.
            function: Name of the Elixir tool, where it is another.
            description: What models are told that it does, in place of its own description.
            parameters: Its parameters, each with a name, which have to be some of its own.
            exposed_to_python: Has to be true.
        """
        if not exposed_to_python:
            text = "expected true: a tool that Python does not see cannot be called"
            raise invalid("exposed_to_python", text)
        spec = ToolSpec(f"elixir:{function or name}", name, description)
        try:
            msgspec.convert(msgspec.to_builtins(spec), ToolSpec)
        except msgspec.ValidationError:
            text = "expected letters, digits, underscores and hyphens, 64 at most"
            raise invalid("name", text) from None
        [described] = await describe(ctx, [spec])
        known = described.parameters["properties"]
        for index, parameter in enumerate(parameters or ()):
            if parameter.get("name") not in known:
                text = f"the tool has {', '.join(known) or 'no parameters'}"
                raise invalid(f"parameters[{index}].name", text)
        store(ctx.session, TOOL, name, msgspec.to_builtins(spec))
        return {"success": True, "tool_name": name, "registered": True}
