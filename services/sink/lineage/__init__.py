"""The ledger's side of a model's lineage, and of retracting a judge: see `qrelay.registry.ledgerside`.

covered.py   which changes of the ledger an export was made of
trace.py     the judgments that those changes brought
side.py      both, and retraction, behind the registry's protocol
"""
