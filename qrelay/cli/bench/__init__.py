"""`qrelay bench`: measure services and the pipeline."""
