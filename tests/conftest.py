"""What several tests share: where real imagery is, if it is."""

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real imagery beside the checkout, or skip."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real imagery is not at {SHARED_DATA}")
    return SHARED_DATA
