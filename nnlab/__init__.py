"""nnlab: one network, any arithmetic."""
