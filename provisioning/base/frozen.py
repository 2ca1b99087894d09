"""`dataclass` of frozen values whose methods are not generated: everything that a build with nothing to do imports.

The standard library's writes and compiles source text for each class, 0.3 to 0.7 ms of processor time; for the fifty
classes of such a build that was a fifth of bare doit with ten tasks (measured). Making an instance is slower here, so
it is not for a class with an instance for each tile.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NoReturn

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(*, frozen: bool, kw_only: bool = False) -> Any:
        """Return the decorator that makes a class a dataclass with the methods of `_Frozen`."""

        def decorate(cls: type) -> type:
            for name in ("__init__", "__setattr__", "__delattr__", "__eq__", "__hash__", "__repr__", "_compared"):
                setattr(cls, name, _Frozen.__dict__[name])
            made = dataclasses.dataclass(init=False, repr=False, eq=False, kw_only=kw_only)(cls)
            made._fields_of_class = dataclasses.fields(made)  # noqa: SLF001
            return made

        assert frozen
        return decorate


class _Frozen:
    _fields_of_class: tuple[dataclasses.Field[Any], ...]

    def __init__(self, *given: Any, **values: Any) -> None:
        fields = self._fields_of_class
        if given:
            values = _by_name(self, fields, given, values)
        own = vars(self)
        for field in fields:
            own[field.name] = values.pop(field.name) if field.name in values else _default(field)
        if values:
            raise TypeError(f"{type(self).__name__} has no {', '.join(values)}")
        if hasattr(self, "__post_init__"):
            self.__post_init__()

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        return self._compared() == other._compared() if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self._compared()))

    def __repr__(self) -> str:
        shown = (f"{field.name}={vars(self)[field.name]!r}" for field in self._fields_of_class if field.repr)
        return f"{type(self).__name__}({', '.join(shown)})"

    def _compared(self) -> list[Any]:
        return [vars(self)[field.name] for field in self._fields_of_class if field.compare]


def _by_name(made: object, fields: tuple[Any, ...], given: tuple[Any, ...], values: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a constructor by name. TypeError as a call of a function would raise it."""
    takes = [field.name for field in fields if not field.kw_only]
    if len(given) > len(takes) or values.keys() & takes[: len(given)]:
        raise TypeError(f"{type(made).__name__} takes {', '.join(takes) or 'no'} by position, each once")
    return {**dict(zip(takes, given, strict=False)), **values}


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    raise TypeError(f"{field.name} is missing")
