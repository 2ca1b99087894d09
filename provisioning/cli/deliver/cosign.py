"""`flightcache cosign`: the signature of a further key on the current generation, where a trust file asks for two."""

from __future__ import annotations

import argparse
from pathlib import Path

from provisioning.base.disk.files import read_regular, wrap_os_errors
from provisioning.base.disk.lock import build_lock
from provisioning.base.errors import SigningError
from provisioning.base.printable import printable
from provisioning.cli.check.verify import trust_arguments, trusted_by
from provisioning.cli.deliver.common import private_key, user_keys
from provisioning.cli.parsing import needs
from provisioning.flight import publish
from provisioning.flight.signing import SIGNATURE_BYTES, PublicKey, load_public_key
from provisioning.flight.trust import Version
from provisioning.flight.verify import Verdict, verify
from provisioning.flight.verify.opening import MOST_SIGNATURES

EXAMPLE = """\
examples:
  flightcache cosign . --key second.pem
  flightcache cosign . --by second.pub.pem --signature Manifest.json.second    made by openssl pkeyutl -sign -rawin

The generation is verified first. The signature goes into Manifest.json.sigs beside the first one.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EXAMPLE
    parser.add_argument("cache", type=Path, nargs="?", default=Path(), help="cache directory")
    by = parser.add_mutually_exclusive_group(required=True)
    by.add_argument("--key", type=Path, metavar="PEM", help="private key that signs too")
    by.add_argument("--signature", type=Path, metavar="FILE", help="64 bytes over Manifest.json, made elsewhere")
    parser.add_argument("--by", type=Path, metavar="PEM", help="public key of --signature")
    trust_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Verify, add the signature, and say who has signed now."""
    needs("--by", "--signature FILE", given=args.by is not None, there=args.signature is not None)
    needs("--signature", "--by PEM, whose signature it is", given=args.signature is not None, there=args.by is not None)
    with build_lock(args.cache.absolute()):
        generation = publish.current_generation(args.cache)
        if generation is None:
            raise SigningError("there is no current generation to sign", file=args.cache, next_step="doit")
        # The builder's signature is enough here: that there are too few is why this one is added.
        expect = trusted_by(args, None, lambda: user_keys(None, args.cache))
        if expect.trust is not None:
            expect = expect._replace(trust=_by_one(expect.trust))
        with verify(generation, expect) as verdict:
            verdict.require()
            public, signature = _signature(args, verdict)
        _add(args.cache, generation.name, verdict, public, signature)
    print(f"{printable(generation)}: also signed by {public.fingerprint}")
    return 0


def _by_one(trust: Version) -> Version:
    return trust._replace(thresholds=trust.thresholds._replace(signing=1))


def _signature(args: argparse.Namespace, verdict: Verdict) -> tuple[PublicKey, bytes]:
    assert verdict.signed is not None
    data = verdict.signed.manifest
    if args.key is not None:
        private = private_key(args.key)
        return PublicKey(private.public_key().public_bytes_raw()), private.sign(data)
    public = load_public_key(args.by)
    with wrap_os_errors("read the signature", args.signature):
        signature = read_regular(args.signature, limit=SIGNATURE_BYTES)
    if len(signature) != SIGNATURE_BYTES or not public.verifies(signature, data):
        raise SigningError("not a signature of Manifest.json by that key", file=args.signature)
    return public, signature


def _add(cache: Path, name: str, verdict: Verdict, public: PublicKey, signature: bytes) -> None:
    """Write the signatures beside the first one, in one step; a key that has signed already signs no second time."""
    assert verdict.signed is not None
    manifest, first, more = verdict.signed
    each = {more[at : at + SIGNATURE_BYTES] for at in range(0, len(more), SIGNATURE_BYTES)}
    if any(public.verifies(one, manifest) for one in (first, *each)):
        raise SigningError("this key has signed already", facts={"fingerprint": public.fingerprint})
    if len(each) == MOST_SIGNATURES:
        raise SigningError(f"there are {MOST_SIGNATURES} further signatures already")
    relative = f"{publish.GENERATIONS}/{name}"
    with wrap_os_errors("add a signature", cache / relative):
        publish.add_signatures(cache, relative, b"".join(sorted({*each, signature})))
