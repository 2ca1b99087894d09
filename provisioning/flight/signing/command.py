"""Signing by an external command: a token, an HSM, a signing service."""

from __future__ import annotations

from provisioning.base.errors import SigningError

COMMAND_TIMEOUT_S = 120
"""Longest time for an external signer, second: a person may have to touch a token."""


def sign_by_command(command: tuple[str, ...], data: bytes) -> bytes:
    """Return what `command` writes when it gets `data` on its standard input; SigningError if it fails or hangs."""
    import subprocess

    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False)
    except OSError as error:
        raise SigningError(f"the signing command cannot be run: {error}", key="signing.command") from error
    except subprocess.TimeoutExpired as error:
        raise SigningError(
            f"the signing command gave no answer in {COMMAND_TIMEOUT_S} s", key="signing.command"
        ) from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise SigningError(
            f"the signing command failed with exit code {done.returncode}",
            key="signing.command",
            facts={"it said": said[-1]} if said else None,
        )
    return done.stdout
