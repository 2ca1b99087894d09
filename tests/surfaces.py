"""A `tensorrt` that has what a release's Python bindings were recorded to have, and nothing else.

`data/tensorrt_surface_record.py` recorded them from the real wheels. Using a name that a release lacks, or calling a
method with arguments its signature does not take, fails here as it would fail there.
"""

import enum
import json
import re
import types
from pathlib import Path

RECORDED = json.loads((Path(__file__).parent / "data/tensorrt_surface.json").read_text())
VERSIONS = tuple(sorted(RECORDED, key=lambda version: [int(part) for part in version.split(".")]))


class Severity(enum.Enum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class Member(int):
    """A member of one of TensorRT's enumerations."""

    def __new__(cls, kind, name):
        member = super().__new__(cls, sum(name.encode()) % 30)
        member.kind, member.name = kind, name
        return member


def parameters(signature):
    """Return the parameters of a recorded signature without self, each with whether it is required; None if unknown."""
    found = re.match(r"\w+\((.*)\) -> ", signature)
    if not found or "*args" in signature:
        return None
    parts, depth = [""], 0
    for letter in found[1]:
        depth += {"[": 1, "(": 1, "<": 1, "]": -1, ")": -1, ">": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [(part.split(":")[0].strip(), "=" not in part) for part in parts[1:]]


class Fake:
    """An object of TensorRT's class `kind`, which answers what the test gave it."""

    def __init__(self, world, kind, **answers):
        self.__dict__.update(world=world, kind=kind, answers=answers)

    def __getattr__(self, name):
        self.world.require(self.kind, name)
        if name in self.answers and not callable(self.answers[name]):
            return self.answers[name]

        def call(*args, **named):
            self.world.check_call(self.kind, name, args, named)
            self.world.calls.append((f"{self.kind}.{name}", *args, *named.values()))
            return self.answers[name](*args, **named) if name in self.answers else None

        return call

    def __setattr__(self, name, value):
        self.world.require(self.kind, name)
        self.world.calls.append((f"{self.kind}.{name}=", value))


class Kind:
    """One of TensorRT's classes: called it makes a Fake, asked for a member it answers if the release has it."""

    def __init__(self, world, kind):
        self.world, self.kind = world, kind

    def __call__(self, *args):
        self.world.calls.append((self.kind, *args))
        return self.world.objects[self.kind](*args)

    def __getattr__(self, name):
        self.world.require(self.kind, name)
        return Member(self.kind, name)


class TensorRTModule(types.ModuleType):
    """The module `tensorrt` of one release."""

    def __init__(self, version, objects):
        super().__init__("tensorrt")
        self.__dict__.update(surface=RECORDED[version], objects=objects, calls=[])
        world = self

        class ILogger:
            """Must be a real class: ours inherits from it."""

            Severity = Severity

            def __init__(self):
                world.require("ILogger", "Severity")

        self.ILogger = ILogger

    def __getattr__(self, name):
        if name not in self.surface["module"]:
            raise AttributeError(f"this release of tensorrt has no {name}")
        return Kind(self, name)

    def require(self, kind, name):
        if kind not in self.surface or name not in self.surface[kind]:
            raise AttributeError(f"{kind} of this release of tensorrt has no {name}")

    def check_call(self, kind, name, args, named):
        known = parameters(self.surface[kind][name])
        if known is None:
            return
        names = [parameter for parameter, _ in known]
        required = {parameter for parameter, needed in known if needed}
        given = set(names[: len(args)]) | set(named)
        if len(args) > len(names) or set(named) - set(names) or required - given:
            raise TypeError(f"{self.surface[kind][name]} called with {args} {named}")

    def called(self, name):
        """Return the arguments of every call of `name`."""
        return [call[1:] for call in self.calls if call[0] == name]


def fake(world, kind, **answers):
    return Fake(world, kind, **answers)
