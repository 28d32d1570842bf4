"""`qrelay eval`: options and output; the work is in `qrelay.training.evaluation`."""
