"""Detection: boxes, what anchors learn, non-maximum suppression, and average precision."""
