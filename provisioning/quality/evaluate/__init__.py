"""How often does a cache know a place? Measured on photos whose position is known, chance beside it."""

from provisioning.quality.evaluate.plot import to_svg
from provisioning.quality.evaluate.queries import Query, find_queries, has_subtitles, read_queries, to_csv
from provisioning.quality.evaluate.run import Asked, Trial, ask, usual_distance_m
from provisioning.quality.evaluate.score import Answer, Recall, Score, chance, score, wilson
from provisioning.quality.evaluate.table import Result, as_json, as_text, per_query

__all__ = [
    "Answer",
    "Asked",
    "Query",
    "Recall",
    "Result",
    "Score",
    "Trial",
    "as_json",
    "as_text",
    "ask",
    "chance",
    "find_queries",
    "has_subtitles",
    "per_query",
    "read_queries",
    "score",
    "to_csv",
    "to_svg",
    "usual_distance_m",
    "wilson",
]
