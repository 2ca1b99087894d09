"""The nearest-neighbour index. Importing this package loads neither numpy nor FAISS.

Heavy parts by name: `index.ids` (rows of an index), `index.build` (write one), `index.read` (load and search one).
"""

from provisioning.index.choice import REFERENCE, Choice, Speed, choose_kind, speed_matters
from provisioning.index.facts import index_facts
from provisioning.index.transform_spec import TransformSpec

__all__ = ["REFERENCE", "Choice", "Speed", "TransformSpec", "choose_kind", "index_facts", "speed_matters"]
