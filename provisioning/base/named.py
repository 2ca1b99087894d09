"""`NamedTuple` whose annotations are kept as they are written: everything that a build with nothing to do imports.

The standard library's compiles the text of each annotation when the class is made, which takes longer than the class
itself; for the eighty of such a build that was six per cent of bare doit with ten tasks (measured).
"""

from __future__ import annotations

from collections import namedtuple
from typing import TYPE_CHECKING, Any

__all__ = ["NamedTuple"]

if TYPE_CHECKING:
    from typing import NamedTuple
else:

    class _Named(type):
        def __new__(cls, name: str, bases: tuple[type, ...], space: dict[str, Any]) -> type:
            if not bases:  # NamedTuple itself
                return super().__new__(cls, name, bases, space)
            fields = space.pop("__annotations__")  # of Python 3.14 only under `from __future__ import annotations`
            defaults = [space.pop(field) for field in fields if field in space]
            made = namedtuple(name, fields, defaults=defaults, module=space.pop("__module__"))  # noqa: PYI024
            made.__annotations__ = made.__new__.__annotations__ = fields
            for key, value in space.items():
                setattr(made, key, value)
            return made

    class NamedTuple(metaclass=_Named):
        """Base in the statement of a class whose annotations are the fields of a tuple; it is no base of the class."""
