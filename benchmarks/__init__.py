"""Measurements, run by `make bench`; never part of the test suite. Figures are quoted as ratios in one run."""
