"""The networks with which every course begins."""
