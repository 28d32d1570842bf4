"""The four services. Each folder runs alone: `python -m qrelay.services.judge` or `qrelay serve judge`."""
