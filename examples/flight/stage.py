r"""Verify a cache, then give programs that open files by path the bytes that were verified, under names that stay.

    python stage.py /var/lib/flightcache /run/navigation/cache --flight F-118 --aircraft AC-7 --this-host

trtexec, Triton and DeepStream open an engine by its path. Between a verdict and that moment anybody with write access
to the cache could put another file there. So the target should lie in memory, in a directory that only the
navigation's user may write to (`RuntimeDirectory=navigation` of systemd). It gets `descriptor.engine`,
`corpus.index`, `Manifest.json`, and `models/descriptor/1/`, the form in which Triton looks for a model. The options
are those of `flightcache verify`. Exit code 22 means: do not fly this cache; then the target is empty. Needs no
package but cryptography.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from provisioning.base.errors import Error
from provisioning.cli.check.verify import expectation_arguments, expectations, unchecked
from provisioning.flight.verify import Verdict, verify

OURS = ("descriptor.engine", "corpus.index", "Manifest.json", "models")
"""All that this program writes, and so all that it removes."""


def clear(target: Path) -> None:
    """Make `target` if it is not there, and remove what an earlier start left; Error if it holds anything else."""
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    if strange := sorted(entry.name for entry in target.iterdir() if entry.name not in OURS):
        raise Error("the target is used by something else", file=target, facts={"there": ", ".join(strange)})
    for name in OURS[:-1]:
        (target / name).unlink(missing_ok=True)
    shutil.rmtree(target / "models", ignore_errors=True)


def stage(verdict: Verdict, target: Path) -> None:
    """Write the verified engine of the descriptors, the index and the Manifest to `target`.

    VerificationError for anything but a PASS, or for bytes that have changed since the verdict.
    """
    manifest = verdict.require()
    assert verdict.signed is not None
    index = manifest.descriptor_index
    engine = verdict.read(index.engine)
    (target / "descriptor.engine").write_bytes(engine)
    (target / "corpus.index").write_bytes(verdict.read(index.path))
    (target / "Manifest.json").write_bytes(verdict.signed.manifest)
    model = "model.onnx" if manifest.host.backend == "onnxruntime" else "model.plan"
    version = target / "models" / "descriptor" / "1"
    version.mkdir(parents=True)
    (version / model).symlink_to("../../../descriptor.engine")


def main() -> int:
    """Verify and stage; 0, or the exit code of the error, and then nothing is staged."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    expectation_arguments(parser, by_name=True)
    parser.add_argument("target", type=Path)
    args = parser.parse_args()
    try:
        expect = expectations(args, args.cache)
        if unsaid := [part for part in unchecked(expect) if not getattr(args, f"any_{part}", True)]:
            parser.error(f"say what is expected of {', '.join(unsaid)}, or --any-… for each")
        clear(args.target)
        try:
            with verify(args.cache, expect) as verdict:
                stage(verdict, args.target)
        except BaseException:
            clear(args.target)
            raise
    except Error as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
