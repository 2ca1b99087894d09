"""How NumPy's linear algebra begins: on one thread, with memory. `index.write.parallel` asks for more threads."""

import os
import resource

from provisioning.base.errors import Error


def begin_with_one_thread() -> None:
    """Have OpenBLAS start no threads when NumPy is imported, unless the environment says how many.

    They would spin before they sleep: 0.2 s of processor time (measured on four cores) for every run that looks at a
    single new tile, taken from those that look at the others. For programs; a library leaves its host as it is.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def require_address_space(needed: int, *, what: str) -> None:
    """Refuse a limit (`ulimit -v`) of less than `needed` bytes, for `what`, with an Error that says both.

    Without the memory to begin with, OpenBLAS ends the process with its own words and exit code 1, and FAISS crashes
    (measured): there is nothing to catch.
    """
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if 0 <= limit < needed:
        raise Error(
            f"the limit on memory is too low for {what}",
            facts={"limit": f"{limit >> 20} MiB of address space", "needed": f"{needed >> 20} MiB at least"},
            next_step="raise it (`ulimit -v unlimited`), then run this again",
        )
