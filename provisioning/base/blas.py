"""How NumPy's linear algebra begins: on one thread. Who wants more asks for it (`index.parallel`)."""

import os


def begin_with_one_thread() -> None:
    """Have OpenBLAS start no threads when NumPy is imported, unless the environment says how many.

    They would spin before they sleep: 0.2 s of processor time (measured on four cores) for every run that looks at a
    single new tile, taken from those that look at the others. For programs; a library leaves its host as it is.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
