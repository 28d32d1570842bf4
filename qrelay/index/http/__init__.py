"""The engine `http`: any search that answers over HTTP, by a template of its request and a mapping of its answer."""
