"""`index.transform` read once: none, center, pca(d) or pca-whiten(d); `auto` is one of these, chosen in the build."""

from __future__ import annotations

import re

from provisioning.base.errors import IndexingError
from provisioning.base.named import NamedTuple

_FORM = r"(none|center|pca|pca-whiten)(?:\(([1-9][0-9]*)\))?"


LEAST_VECTORS = 2
AUTO = "auto"
"""One of the others, chosen when the index is built; until then it costs what no transform costs."""


class TransformSpec(NamedTuple):
    """What is done to a descriptor before it is compared; `components` is 0 where the dimension stays."""

    name: str
    components: int = 0

    @classmethod
    def parse(cls, text: str) -> TransformSpec:
        """Read `text`, `auto` as `none`; raises IndexingError that names the forms allowed."""
        if text in (AUTO, "none"):
            return cls("none")
        found = re.fullmatch(_FORM, text.replace(" ", ""))
        if found is None or (found[2] is not None) != found[1].startswith("pca"):
            raise IndexingError(
                f"index.transform is not understood: {text!r}",
                file="flight.toml",
                key="index.transform",
                next_step="write none, center, pca(d) or pca-whiten(d), d the dimension to keep, or auto",
            )
        return cls(found[1], int(found[2] or 0))

    def require(self, vectors: int) -> None:
        """Raise IndexingError where too few vectors are there to learn from: less their mean, one alone is zero."""
        if self.name != "none" and vectors < LEAST_VECTORS:
            raise IndexingError(
                f"index.transform = {self.name} is learned from the corpus, which has {vectors} descriptor",
                file="flight.toml",
                key="index.transform",
                next_step='set index.transform = "none", or add tiles to the area',
            )

    def output(self, dimension: int) -> int:
        """Return the dimension after the transform of vectors of `dimension`; IndexingError if it would grow."""
        if self.components > dimension:
            raise IndexingError(
                f"index.transform keeps {self.components} components of descriptors that have {dimension}",
                file="flight.toml",
                key="index.transform",
                next_step=f"keep at most {dimension} components",
            )
        return self.components or dimension
