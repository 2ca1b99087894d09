"""Trust files for the vectors: signed chains, and what is wrong with others. The root keys are published too."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provisioning.flight.trust import (
    ROOT,
    SIGNING,
    Recovery,
    Signature,
    SignedVersion,
    Thresholds,
    Trust,
    TrustedKey,
    Version,
    payload,
    to_bytes,
)
from tests.caches import KEY, OTHER_KEY, public

ROOTS = [Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in range(1, 4)]
A, B = TrustedKey(SIGNING, public(KEY), "first"), TrustedKey(SIGNING, public(OTHER_KEY))


def version(
    number: int, *keys: TrustedKey, roots: tuple[int, ...] = (0,), must: tuple[int, int] = (1, 1), **more
) -> Version:
    named = [TrustedKey(ROOT, public(ROOTS[n]), f"root {n}") for n in roots]
    return Version(number, (*named, *(keys or (A,))), Thresholds(*must), **more)


def signed(content: Version, *by: int) -> SignedVersion:
    data = payload(content)
    return SignedVersion(content, tuple(Signature(public(ROOTS[n]).fingerprint, ROOTS[n].sign(data)) for n in by))


def one(*keys: TrustedKey, **more) -> str:
    """A trust file of one version, as text."""
    return to_bytes(Trust((signed(version(1, *keys, **more), 0, 1, 2),))).decode()


def files() -> list[dict[str, str]]:
    """Name, bytes as text, and what a reader says: the newest version, or why it is refused."""
    first = signed(version(1), 0)
    both = version(2, A, B, roots=(0, 1), must=(2, 2), revoked=("ab" * 32,), not_after="2030-06-01T00:00:00Z")
    chain = (first, signed(both, 0, 1), signed(version(3, roots=(2,), recovery=Recovery(57, 12)), 0, 1, 2))
    text = to_bytes(Trust((first,))).decode()
    good = {"one version": (first,), "a chain of three": chain, "a chain that begins at 2": chain[1:]}
    unsigned = {
        "no signature": (signed(version(1), *()),),
        "signed by another key": (signed(version(1), 1),),
        "one of two root keys": (signed(both, 1),),
        "one root key twice": (SignedVersion(both, signed(both, 0).signatures * 2),),
        "the next not signed by the root before": (first, signed(version(2, roots=(1,)), 1)),
        "the next not signed by its own root": (first, signed(version(2, roots=(1,)), 0)),
        "a signature under another key's name": (
            SignedVersion(
                first.signed, (Signature(public(ROOTS[0]).fingerprint, first.signatures[0].signature[::-1]),)
            ),
        ),
    }
    malformed = {
        "empty": "",
        "not canonical": text.replace("  ", " "),
        "another schema": text.replace("flight-cache-trust/1", "flight-cache-trust/2"),
        "an unknown key": text.replace('"thresholds"', '"threshold"'),
        "version 0": text.replace('"version": 1', '"version": 0'),
        "threshold beyond the keys": text.replace('"signing": 1', '"signing": 2'),
        "a key in two roles": text.replace(public(KEY).raw.hex(), public(ROOTS[0]).raw.hex()),
        "a weak key": text.replace(public(KEY).raw.hex(), "01" + "00" * 31),
        "trusted and revoked": text.replace(
            '"revoked": []', f'"revoked": [\n          "{public(KEY).fingerprint}"\n        ]'
        ),
        "trusted and revoked by its raw bytes": text.replace(
            '"revoked": []', f'"revoked": [\n          "{public(KEY).raw.hex()}"\n        ]'
        ),
        "a gap between versions": to_bytes(Trust(chain[:1])).decode()[:-6]
        + ",\n"
        + to_bytes(Trust(chain[2:])).decode().partition('"versions": [\n')[2],
        "capitals": text.replace(public(KEY).raw.hex(), public(KEY).raw.hex().upper()),
        "no version": '{\n  "schema": "flight-cache-trust/1",\n  "versions": []\n}\n',
    }
    found = [
        {"name": n, "text": to_bytes(Trust(v)).decode(), "says": str(v[-1].signed.version)} for n, v in good.items()
    ]
    found += [{"name": n, "text": to_bytes(Trust(v)).decode(), "says": "unsigned"} for n, v in unsigned.items()]
    return found + [{"name": n, "text": t, "says": "malformed"} for n, t in malformed.items()]
