"""Forgetting queries: their texts go from every store of an installation, and what cannot go is named.

    report = await forget(place, wanted, dry_run=False)

finder.py   knows a text again, in rows, replies and files
stores.py   what each store holds of the queries, and taking it away: queues, cache, journal
folder.py   files of the data folder: training data, frozen sets, reports
named.py    exports, versions of models and other files that may hold a query and stay as they are
forget.py   the order of the steps, each of which may be taken again after a kill

The ledger's part is `qrelay.labels.ledger.forgetting`.
"""
