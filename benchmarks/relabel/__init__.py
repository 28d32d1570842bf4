"""Does `qrelay relabel` find false negatives, and do they matter? See `__main__.py`."""
