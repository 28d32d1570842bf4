"""`qrelay bench …`: the commands."""
