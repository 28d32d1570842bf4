"""Models: which ones exist, where their files are, how they get there, and the embedder.

catalogue.yaml   the models that qrelay knows, with hashes and sources
records.py       its typed records
catalogue.py     load and validate it; `resolve(name)` to a verified path
home.py          the model home, and cheap verification
pull.py          fetch a model from the first source that has it (hub.py, wheels.py)
cli.py           `qrelay models list|pull|verify`
embedder.py      texts to vectors, and token windows
"""
