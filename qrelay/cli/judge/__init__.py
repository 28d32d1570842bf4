"""`qrelay judge`: a module a subject; the work is in `qrelay.judging`."""
