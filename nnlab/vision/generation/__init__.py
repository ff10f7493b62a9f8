"""Generation: images out of nothing, and how far they are from real ones."""

from nnlab.vision.generation.measures import (
    GenerationScores,
    features_of,
    fid,
    generation_scores,
    kid,
    standardised,
    statistics,
)

__all__ = [
    "GenerationScores",
    "features_of",
    "fid",
    "generation_scores",
    "kid",
    "standardised",
    "statistics",
]
