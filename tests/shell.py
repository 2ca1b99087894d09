"""Names of files in command lines of a shell: the folder of temporary files may have a space in its name."""

import os
import shlex


def quote(path: str | os.PathLike[str]) -> str:
    """Return `path` as one word of a shell."""
    return shlex.quote(os.fspath(path))
