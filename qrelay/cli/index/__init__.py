"""`qrelay index`: a module a subject; the work is in `qrelay.index`."""
