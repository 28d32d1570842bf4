"""Batches on the judge's side: what is ordered and kept, what it may cost, orders by hand.

`qrelay/llm/batch` does the asking.
"""
