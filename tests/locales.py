"""What the locale changes in libraries that tests use as somebody else's tools."""

import locale
from contextlib import contextmanager


@contextmanager
def case_of_ascii():
    """GDAL compares the words of its options by the case of the locale, and a Turkish i has no I: write as its tools do.

    Its own programs keep the locale "C"; a Python process takes that of the environment.
    """
    before = locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, "C")
    try:
        yield
    finally:
        locale.setlocale(locale.LC_CTYPE, before)
