"""Readers and writers of files: BEIR, TREC, annotated pairs, JSON records. Errors name the file and the line."""
