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


@pytest.fixture(scope="session")
def demo_imagery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the demo's 660 tiles; read them, do not change them."""
    from provisioning import demo

    folder = tmp_path_factory.mktemp("imagery")
    demo.write_demo_tiles(folder)
    return folder
