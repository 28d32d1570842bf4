"""Models: which exist, where their files are, how they get there, the embedder, and which engine suits a machine.

catalogue.yaml   the models that qrelay knows, with hashes and sources
records.py       its typed records
catalogue.py     load and validate it; `resolve(name)` to a verified path
home.py          the model home, and cheap verification
safe.py          which files are refused, because they can run code
pull.py          fetch a model from the first source that has it (hub.py, wheels.py)
prepared.py      copies for engines, made once (openvino*.py, static_int8.py)
tuning.py        the judge and the engine for this machine, by measuring (speed.py)
registry/        trained versions: what they are, what the gate said, which one serves
embedder.py      texts to vectors, and token windows
embedding_endpoint.py   the same, asked over HTTP
"""
