"""How single objects are given other methods than their class has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from commlib._lanes import is_async
from commlib._spans import within


def replace(owner: object, name: str, method: Callable[..., Any]) -> None:
    """Have an object use another method than its class has."""
    setattr(owner, name, method)


def in_context(callback: Callable[..., Any] | None, context: Any) -> Callable[..., Any] | None:
    """The same callback, called in a context; a coroutine function stays one."""
    if callback is None or context is None:
        return callback
    if is_async(callback):

        async def awaited(*args: Any) -> Any:
            with within(context):
                return await callback(*args)

        return awaited

    def called(*args: Any) -> Any:
        with within(context):
            return callback(*args)

    return called
