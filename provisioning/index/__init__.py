"""The nearest-neighbour index. Importing this package loads neither numpy nor FAISS.

Order of use: `settle` (under the lock, after the scan), `index_facts` (the key of `corpus.index`), then in the task
`index.corpus.corpus_rows` and `index.corpus.build_corpus_index`, whose `IndexInfo.to_json()` is kept beside it;
`read_info` reads that. Whoever flies it calls `index.read.load_index` and `index.read.search`.
"""

from provisioning.index.choice import REFERENCE, Choice, Speed, choose_kind, speed_matters
from provisioning.index.facts import choose, index_facts
from provisioning.index.info import IndexInfo, read_info
from provisioning.index.settle import settle
from provisioning.index.transform_spec import TransformSpec

__all__ = [
    "REFERENCE",
    "Choice",
    "IndexInfo",
    "Speed",
    "TransformSpec",
    "choose",
    "choose_kind",
    "index_facts",
    "read_info",
    "settle",
    "speed_matters",
]
