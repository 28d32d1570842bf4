"""Judging passages: strategies, judges, ensembles, cascades, cache, budget, qualification."""
