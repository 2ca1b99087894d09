"""How many examples a property takes that costs more, or hides better, than others."""

from hypothesis import settings


def examples(times: float, *, nightly: float | None = None) -> settings:
    """Return as many examples as the profile has, `times` over, or `nightly` times where it is the thorough one."""
    most = settings().max_examples
    if nightly and most == settings.get_profile("thorough").max_examples:
        times = nightly
    return settings(max_examples=max(1, round(most * times)))
