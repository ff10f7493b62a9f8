"""Segmentation: a class for every pixel, and how well that is done."""
