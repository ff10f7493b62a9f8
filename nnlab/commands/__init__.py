"""One file a command: `nnlab NAME`, or `python -m nnlab NAME`."""
