"""How deep a Manifest may be nested is the same on every Python, and as in the C++ reader."""

import pytest

from provisioning.base.errors import ManifestError
from provisioning.flight.manifest import strict_json


@pytest.mark.parametrize("depth", [1, 5, strict_json.MAX_DEPTH])
@pytest.mark.parametrize(("begin", "end"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_depth_within_the_bound_is_read(depth, begin, end):
    assert strict_json.load(begin * depth + b"1" + end * depth)


@pytest.mark.parametrize("depth", [strict_json.MAX_DEPTH + 1, 900, 100_000])
@pytest.mark.parametrize(("begin", "end"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_depth_beyond_the_bound_is_malformed_whatever_pythons_own_limit_is(depth, begin, end):
    with pytest.raises(ManifestError, match="malformed") as caught:
        strict_json.load(begin * depth + b"1" + end * depth)
    assert caught.value.key is None
