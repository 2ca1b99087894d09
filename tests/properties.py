"""How many examples a property takes that costs more, or hides better, than others."""

from hypothesis import settings


def examples(times: float) -> settings:
    """Return as many examples as the profile has, `times` over."""
    return settings(max_examples=max(1, round(settings().max_examples * times)))
