"""Cleaning a training set that already is: its passages judged, false negatives and wrong positives counted, and the
set written again without them. See docs/relabel.md."""
