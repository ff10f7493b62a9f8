"""Image data sets as they are on disk."""
