"""Generation: images out of nothing, and how far they are from real ones."""
