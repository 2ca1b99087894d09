"""`NamedTuple` whose class is made without compiling anything: everything that a build with nothing to do imports.

The standard library's compiles the text of each annotation and a constructor for each class; for the eighty of such a
build that was a tenth of bare doit with ten tasks (measured). By position an instance is made as fast here, by name
four times as slowly (2 µs).
"""

from __future__ import annotations

from collections import _tuplegetter  # type: ignore[attr-defined]  # reads a field in C, for `namedtuple` too
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

__all__ = ["NamedTuple"]

if TYPE_CHECKING:
    from typing import NamedTuple
else:

    class _Methods(tuple):
        """What each class is given: it has `tuple` alone as its base."""

        __slots__ = ()

        def __new__(cls, /, *given: Any, **named: Any) -> Any:
            if named or len(given) != cls._count:
                missing = cls._count - len(given)
                is_short = not named and 0 < missing <= len(cls._field_defaults)
                given = (*given, *cls._ends[-missing:]) if is_short else _bound(cls, given, named)
            return tuple.__new__(cls, given)

        @classmethod
        def _make(cls, values: Iterable[Any]) -> Any:
            made = tuple.__new__(cls, values)
            if len(made) != len(cls._fields):
                raise TypeError(f"{cls.__name__} takes {len(cls._fields)} values, not {len(made)}")
            return made

        def _replace(self, /, **named: Any) -> Any:
            made = tuple.__new__(type(self), map(named.pop, self._fields, self))
            if named:
                raise ValueError(f"{type(self).__name__} has no {', '.join(named)}")
            return made

        def _asdict(self) -> dict[str, Any]:
            return dict(zip(self._fields, self, strict=True))

        def __getnewargs__(self) -> tuple[Any, ...]:
            return tuple(self)

        def __repr__(self) -> str:
            return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._asdict().items())})"

    _METHODS = {
        name: vars(_Methods)[name] for name in ("__new__", "_make", "_replace", "_asdict", "__getnewargs__", "__repr__")
    }

    class _Named(type):
        def __new__(cls, name: str, bases: tuple[type, ...], space: dict[str, Any]) -> type:
            if not bases:  # NamedTuple itself
                return super().__new__(cls, name, bases, space)
            fields = tuple(space["__annotations__"])  # of Python 3.14 only under `from __future__ import annotations`
            defaults = {field: space[field] for field in fields if field in space}
            if tuple(defaults) != fields[len(fields) - len(defaults) :]:
                raise TypeError(f"{name}: a field without a default follows one that has one")
            own = {"__slots__": (), "__match_args__": fields, "_fields": fields, "_field_defaults": defaults}
            own["_ends"], own["_count"] = tuple(defaults.values()), len(fields)
            own.update((field, _tuplegetter(number, None)) for number, field in enumerate(fields))
            return type(name, (tuple,), {**_METHODS, **space, **own})

    class NamedTuple(metaclass=_Named):
        """Base in the statement of a class whose annotations are the fields of a tuple; it is no base of the class."""


def _bound(kind: Any, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
    """Return the fields of a constructor's arguments. TypeError as a call of a function would raise it."""
    fields: tuple[str, ...] = kind._fields
    by_position = fields[: len(given)]
    values = {**kind._field_defaults, **dict(zip(by_position, given, strict=False)), **named}
    if len(given) > len(fields) or not named.keys().isdisjoint(by_position) or values.keys() != set(fields):
        lacks = [field for field in fields if field not in values]
        why = f"lacks {', '.join(lacks)}" if lacks else f"takes {', '.join(fields) or 'nothing'}, each once"
        raise TypeError(f"{kind.__name__} {why}")
    return tuple(map(values.__getitem__, fields))
