"""Feeding: lines of a file become queries on the queue, each acknowledged and recorded."""
