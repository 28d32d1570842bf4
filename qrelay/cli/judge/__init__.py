"""The commands of `qrelay judge`, one module a subject."""
