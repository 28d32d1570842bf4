"""The ledger's side of a model's lineage, of retracting a judge and of `qrelay judge check`: see
`qrelay.models.registry.ledgerside`.

covered.py   which changes of the ledger an export was made of
trace.py     the judgments that those changes brought
labelled.py  every labelled pair, with what all judges, systems, people and mining say of it
side.py      these, and retraction, behind the registry's protocol
"""
