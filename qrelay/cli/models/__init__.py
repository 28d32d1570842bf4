"""`qrelay models`: the catalogue's models, and the registry's versions; a module a subject."""
