"""A ground with keys and a cache, and a vehicle; every command as a user types it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from provisioning.cli import main
from provisioning.flight.signing import load_public_key
from provisioning.flight.vehicle import Vehicle, vehicle_of
from tests.delivery import Keys, make_keys, publish_cache


class World:
    """A ground with keys and a cache, and a vehicle; every command as a user types it."""

    self_test = False
    """Whether installing runs the engine, which here is plain bytes: seconds for nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cache, self.target, self.trust = root / "cache", root / "vehicle", root / "cache/trust.json"
        self.keys = {name: self.new_key(name) for name in ("root", "root2", "one", "two")}
        self.cache.mkdir()

    def new_key(self, name: str) -> Keys:
        (self.root / name).mkdir()
        return make_keys(self.root / name)

    def private(self, name: str) -> str:
        return str(self.root / name / "operator.pem")

    def public(self, name: str) -> str:
        return str(self.root / name / "operator.pub.pem")

    def fingerprint(self, name: str) -> str:
        return load_public_key(Path(self.public(name))).fingerprint

    def run(self, *words: str | Path, rc: int = 0) -> None:
        assert main([str(word) for word in words]) == rc

    def begin(self, *more: str) -> None:
        self.run(
            "trust", "init", self.trust, "--root", self.public("root"), "--signing", self.public("one"),
            "--not-after", "never", *more,
        )  # fmt: skip
        self.run("trust", "sign", self.trust, "--key", self.private("root"))

    def commission(self) -> None:
        self.run("trust", "install", self.trust, self.target, "--root-fingerprint", self.fingerprint("root"))

    def build(self, counter: int, by: str = "one", flight: str = "F-1") -> None:
        publish_cache(self.cache, self.keys[by], counter=counter, flight_id=flight)

    def bundle(self, counter: int, by: str = "one", flight: str = "F-1", name: str = "") -> Path:
        self.build(counter, by, flight)
        file = self.root / f"{name or counter}.tar"
        self.run("bundle", self.cache, "-o", file, "--public-key", self.public(by))
        return file

    def install(self, bundle: Path, rc: int = 0) -> None:
        self.run("install", bundle, self.target, *([] if self.self_test else ["--no-self-test"]), rc=rc)

    def verify(self, *more: str, rc: int = 0) -> None:
        self.run("verify", self.target, "--any-flight", "--any-aircraft", "--any-host", *more, rc=rc)

    @property
    def vehicle(self) -> Vehicle:
        return vehicle_of(self.target)

    def current(self) -> str:
        return Path(os.readlink(self.target / "current")).name


def new_world(root: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world whose user has no keys and no vehicles yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(root / "config"))
    monkeypatch.delenv("FLIGHTCACHE_PUBLIC_KEY", raising=False)
    monkeypatch.delenv("FLIGHTCACHE_VEHICLE", raising=False)
    return World(root)
