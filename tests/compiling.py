"""How tests compile the examples in C++: with warnings as errors, and with checks that end the program."""

import subprocess

import pytest

WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror"]

PLAIN = pytest.param(["-O0", "-D_GLIBCXX_ASSERTIONS", "-ftrapv"], id="plain")
"""An index beyond the end and a signed overflow end it. Half the compile of the full form."""
SANITIZED = pytest.param(
    ["-O0", "-fsanitize=address,undefined", "-fsanitize-undefined-trap-on-error"],
    id="sanitized",
    marks=pytest.mark.slow,
)
"""Without the trap, undefined behaviour is a line on stderr, and the exit code that of success."""


def compile_by(words, flags):
    """Run a compiler, or make; skip the test where the libraries that `flags` ask for are missing."""
    built = subprocess.run(words, capture_output=True, text=True, check=False)
    if "cannot find" in built.stderr:  # not every compiler brings the sanitizers' libraries
        pytest.skip(f"the compiler has no libraries for {' '.join(flags)}")
    assert built.returncode == 0, built.stderr
