"""The four services. Each folder runs alone: `python -m services.judge` or `qrelay serve judge`."""
