"""The nearest-neighbour index. Importing this package loads neither numpy nor FAISS.

`choose` decides the kind, `index_facts` is the key of `corpus.index`, `index.write.build.build` writes it and returns
the `IndexInfo` that is kept beside the file; `read_info` reads it. An aircraft calls `index.read.load_index` and
`index.read.search`.
"""

from provisioning.index.choice import Choice, choose, most_vectors, overlap_of
from provisioning.index.facts import index_facts
from provisioning.index.info import IndexInfo, read_info
from provisioning.index.transform.spec import TransformSpec

__all__ = ["Choice", "IndexInfo", "TransformSpec", "choose", "index_facts", "most_vectors", "overlap_of", "read_info"]
