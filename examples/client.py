"""Queries through all four services, and their labels read back.

    qrelay up --detach
    python examples/client.py COLLECTION "What causes glaucoma?" "another query"

Where queries come as a stream, feed the queue instead (`client.feed`, `qrelay feed`): it retries, and nothing that it
accepted is lost.
"""

from __future__ import annotations

import sys

from qrelay import Client


def main(collection: str, *texts: str) -> None:
    """Retrieve, rerank, judge and commit each query; then print its labels from the ledger."""
    with Client(collection=collection) as client:
        judged = list(client.judge(client.rerank(client.retrieve(texts))))
        list(client.ingest(judged))  # a query's id is a hash of its text: labelling it again adds nothing
        for query in (each.candidate_set.query for each in judged):
            for found in client.labels(f"query_id={query.query_id}"):
                for judgment in found.judgments:
                    print(query.text, judgment.passage_id, judgment.outcome, sep="\t")


if __name__ == "__main__":
    main(*sys.argv[1:])
