"""The four services, imported as `qrelay.services`. Each runs alone: `qrelay serve judge`."""
