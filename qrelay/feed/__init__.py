"""Feeding: lines of a file become queries on the stream, each acknowledged and remembered."""
