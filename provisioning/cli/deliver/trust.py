"""`flightcache trust`: who may sign caches, in a file that an offline root key signs."""

from __future__ import annotations

import argparse
import calendar
import os
import re
import shlex
import time
from pathlib import Path

from provisioning.base.disk.files import read_regular, wrap_os_errors, write_durably
from provisioning.base.errors import SigningError, TrustError
from provisioning.base.hashing import Sha256
from provisioning.base.printable import printable
from provisioning.base.words import typed
from provisioning.cli.check.verify import fingerprint_file, fingerprints
from provisioning.cli.deliver.common import private_key
from provisioning.cli.parsing import needs
from provisioning.flight.signing import (
    PublicKey,
    generate_key,
    load_public_key,
    public_key_path,
)
from provisioning.flight.signing.command import sign_by_command
from provisioning.flight.trust import (
    MAX_BYTES,
    ROOT,
    SIGNING,
    Recovery,
    Signature,
    SignedVersion,
    Thresholds,
    Trust,
    TrustedKey,
    Version,
    check_chain,
    missing_signatures,
    parse,
    payload,
    read_trust,
    signed_by_own_roots,
    to_bytes,
)
from provisioning.flight.vehicle import register, vehicle_of

EXAMPLE = """\
examples:
  flightcache trust init trust.json --root root.pub.pem --signing operator.pub.pem --not-after 2028-01-01
  flightcache trust sign trust.json --key root.pem              on the computer that has the root key
  flightcache trust install trust.json /var/lib/flightcache --root-fingerprint HEX     once, on the vehicle
  flightcache trust next trust.json --signing new.pub.pem --revoke HEX                 then sign, then bundle or sync

`bundle` and `sync` take the trust.json beside flight.toml along; a vehicle installs its newer versions by itself.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EXAMPLE
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    init = verbs.add_parser("init", help="write version 1, to be signed")
    init.add_argument("file", type=Path, metavar="FILE")
    _changes(init)
    following = verbs.add_parser("next", help="add the next version, to be signed: what is not named stays")
    following.add_argument("file", type=Path, metavar="FILE")
    _changes(following)
    add = following.add_argument
    add("--remove", type=fingerprints, action="append", default=[], metavar="HEX", help="key to take out")
    add("--revoke", type=fingerprints, action="append", default=[], metavar="HEX", help="take out, and revoke")
    add("--revoke-file", type=fingerprint_file, dest="revoke", action="append", metavar="FILE", help="from a file")
    recovery = "counter floors that are lost, or above ABOVE, become COUNTER"
    add("--recover", nargs=2, type=_count, metavar=("ABOVE", "COUNTER"), help=recovery)
    sign = verbs.add_parser("sign", help="add a root key's signature to the newest version")
    sign.add_argument("file", type=Path, metavar="FILE")
    by = sign.add_mutually_exclusive_group(required=True)
    by.add_argument("--key", type=Path, metavar="PEM", help="private root key")
    by.add_argument("--by-command", metavar="WORDS", help="signs what it reads (an HSM), with --public-key")
    sign.add_argument("--public-key", type=Path, metavar="PEM", help="root key of --by-command")
    show = verbs.add_parser("show", help="say what a trust file says, and what is missing")
    show.add_argument("file", type=Path, metavar="FILE")
    install = verbs.add_parser("install", help="install it on this vehicle, or update it")
    install.add_argument("file", type=Path, metavar="FILE")
    install.add_argument(
        "cache", type=Path, metavar="CACHE", help="cache directory of the vehicle, which may not be there yet"
    )
    root = "root key that must have signed the file; more than one: any of them"
    install.add_argument("--root-fingerprint", type=fingerprints, action="append", default=[], metavar="HEX", help=root)
    install.add_argument("--system", action="store_true", help="for every user of this computer, in /etc/flightcache")


def _changes(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--root", type=Path, action="append", default=[], metavar="PEM", help="public root key; again for more")
    add("--signing", type=_signing, action="append", default=[], metavar="PEM[=DATE]",
        help="public key that signs caches, until the end of a date; again for more")  # fmt: skip
    add("--root-threshold", type=_few, metavar="N", help="root keys that must sign a trust file (1)")
    add("--threshold", type=_few, metavar="N", help="signing keys that must sign a cache (1)")
    add("--not-after", type=_end, metavar="DATE|never", help="last day on which a cache is accepted by this version")


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,16}", text):
        raise argparse.ArgumentTypeError(f"not a number: {text[:40]!r}")
    return int(text)


def _few(text: str) -> int:
    if not 1 <= (number := _count(text)) <= 64:
        raise argparse.ArgumentTypeError(f"not 1 to 64: {number}")
    return number


def _end(text: str) -> str:
    if text == "never":
        return ""
    try:
        calendar.timegm(time.strptime(text, "%Y-%m-%d"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not a date: {text[:40]!r} (YYYY-MM-DD or never expected)") from error
    return f"{text}T23:59:59Z"


def _signing(text: str) -> tuple[Path, str | None]:
    path, equals, date = text.rpartition("=")
    return (Path(path), _end(date) or None) if equals else (Path(text), None)


def run(args: argparse.Namespace) -> int:
    """Do what the verb says and print the state of the file."""
    {"init": _init, "next": _next, "sign": _sign, "show": _show, "install": _install}[args.verb](args)
    return 0


def _init(args: argparse.Namespace) -> None:
    if os.path.lexists(args.file):
        raise TrustError(
            "the file is there already", file=args.file, next_step=typed("flightcache", "trust", "next", args.file)
        )
    if not args.root or not args.signing or args.not_after is None:
        raise TrustError(
            "a trust file names root keys, signing keys and its end",
            next_step="give --root PEM --signing PEM --not-after DATE (or never)",
        )
    thresholds = Thresholds(args.root_threshold or 1, args.threshold or 1)
    version = Version(1, _named(args), thresholds, not_after=args.not_after or None)
    _write(args.file, Trust((SignedVersion(version, ()),)))


def _named(args: argparse.Namespace) -> tuple[TrustedKey, ...]:
    roots = [TrustedKey(ROOT, load_public_key(path), _name(path)) for path in args.root]
    return (*roots, *(TrustedKey(SIGNING, load_public_key(path), _name(path), end) for path, end in args.signing))


def _name(path: Path) -> str | None:
    name = path.name.removesuffix(".pem").removesuffix(".pub")
    return name if re.fullmatch(r"[!-~]([ -~]{0,60}[!-~])?", name) else None


def _next(args: argparse.Namespace) -> None:
    trust = check_chain(_read(args.file))
    old = trust.newest
    listed = {digest: key.key.fingerprint for key in old.keys for digest in key.key.digests}
    revoked = frozenset(listed.get(each, each) for each in frozenset().union(*args.revoke))
    gone = revoked.union(listed.get(each, each) for each in frozenset().union(*args.remove))
    if unknown := gone - {key.key.fingerprint for key in old.keys} - revoked:
        raise TrustError("no such key to remove", file=args.file, facts={"fingerprint": ", ".join(sorted(unknown))})
    named = _named(args)
    replaced = gone | {key.key.fingerprint for key in named}
    version = Version(
        old.version + 1,
        (*(key for key in old.keys if key.key.fingerprint not in replaced), *named),
        Thresholds(args.root_threshold or old.thresholds.root, args.threshold or old.thresholds.signing),
        tuple(sorted(revoked.union(old.revoked))),
        old.not_after if args.not_after is None else args.not_after or None,
        Recovery(*args.recover) if args.recover else None,
    )
    _write(args.file, Trust((*trust.versions, SignedVersion(version, ()))))


def _sign(args: argparse.Namespace) -> None:
    has_key, has_command = args.public_key is not None, args.by_command is not None
    needs("--public-key", "--by-command WORDS", given=has_key, there=has_command)
    needs("--by-command", "--public-key PEM, whose signature it makes", given=has_command, there=has_key)
    trust = _read(args.file)
    newest = trust.versions[-1]
    data = payload(newest.signed)
    if args.key is not None:
        private = private_key(args.key)
        public, signature = PublicKey(private.public_key().public_bytes_raw()), private.sign(data)
    else:
        public, signature = load_public_key(args.public_key), sign_by_command(tuple(shlex.split(args.by_command)), data)
    if not public.verifies(signature, data):
        raise SigningError("the signature is not by that public key")
    before = trust.versions[-2].signed if len(trust.versions) > 1 else newest.signed
    if not any(key.key == public for key in (*newest.signed.keys_of(ROOT), *before.keys_of(ROOT))):
        raise TrustError("not a root key of this file", file=args.file, facts={"fingerprint": public.fingerprint})
    others = [each for each in newest.signatures if each.fingerprint != public.fingerprint]
    signed = newest._replace(signatures=(*others, Signature(Sha256(public.fingerprint), signature)))
    _write(args.file, Trust((*trust.versions[:-1], signed)))


def _show(args: argparse.Namespace) -> None:
    print(describe(_read(args.file)))


def _install(args: argparse.Namespace) -> None:
    offered = read_trust(args.file)
    vehicle = vehicle_of(args.cache)
    wanted = frozenset().union(*args.root_fingerprint)
    signed = signed_by_own_roots(offered)
    if wanted and not wanted & signed:  # that it is named is not enough: whoever made the file may have named it
        raise TrustError(
            "the trust file is not signed by that root key",
            file=args.file,
            facts={"signed by": ", ".join(sorted(signed))},
        )
    vehicle.make()
    before = vehicle.read_trust()
    installed = vehicle.install_trust(offered)
    if not os.path.lexists(vehicle.key_file):
        generate_key(vehicle.key_file, password=None)
    where = register(vehicle, system=args.system)
    if before is None and not wanted:
        print("first trust file here: compare the root key's fingerprint with the one that you know from elsewhere")
    print(describe(installed))
    print(f"installed   {printable(vehicle.trust_file)}, registered in {printable(where)}")
    print(f"receipts    signed by {load_public_key(public_key_path(vehicle.key_file)).fingerprint}")


def _read(file: Path) -> Trust:
    try:
        return parse(read_regular(file, limit=MAX_BYTES), file=file)
    except OSError as error:
        raise TrustError(f"the trust file cannot be read: {error.strerror or error}", file=file) from error


def _write(file: Path, trust: Trust) -> None:
    try:
        data = to_bytes(trust)
    except TrustError as error:
        error.what, error.file = "this would be no valid trust file; nothing was written", str(file)
        error.next_step = "see --root, --signing, --root-threshold and --threshold of flightcache trust next --help"
        raise
    with wrap_os_errors("write the trust file", file):
        write_durably(file, data)
    print(describe(trust))


def describe(trust: Trust) -> str:
    """Return what the newest version says, in words, and how many signatures it still needs."""
    newest = trust.newest
    lines = [f"trust file  version {newest.version}, {f'until {newest.not_after}' if newest.not_after else 'no end'}"]
    for key in newest.keys:
        until = f", until {key.not_after}" if key.not_after else ""
        lines.append(f"{key.role:<11} {key.key.fingerprint}  {printable(key.name or '')}{until}".rstrip())
    lines += [f"revoked     {each}" for each in newest.revoked]
    lines.append(
        f"must sign   {newest.thresholds.root} root keys a trust file, {newest.thresholds.signing} signing keys a cache"
    )
    if newest.recovery:
        lines.append(f"recovery    floors lost or above {newest.recovery.above} become {newest.recovery.counter}")
    return "\n".join([*lines, *_missing(trust)])


def _missing(trust: Trust) -> list[str]:
    newest = trust.versions[-1]
    by = {"its own": newest.signed}
    if len(trust.versions) > 1:
        by[f"version {newest.signed.version - 1}'s"] = trust.versions[-2].signed
    missing = [
        f"{count} of {whose} root keys" for whose, each in by.items() if (count := missing_signatures(newest, each))
    ]
    return (
        [f"not valid   signatures are missing: {', '.join(missing)} (flightcache trust sign)"]
        if missing
        else ["signed      complete"]
    )
