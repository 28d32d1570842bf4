"""One file a format; `catalogue.py` has the table. Each has `open_writer(output, options) -> Writer`."""
