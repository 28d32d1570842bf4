"""Each service beside its bare library: the same items, the same machine, by turns in one run.

    turns.py       who goes when, and the ratio with its interval
    retriever.py   beside bm25s + FAISS with the same embedding model
    reranker.py    beside CrossEncoder.predict on the same pairs
    judge.py       beside llama.cpp on the same prompts
    sink.py        beside the database driver's bulk insert of the same rows (databases.py)

`python -m benchmarks.references --help`. What a bare library does not do (checks, identities, protobuf, durable
bookkeeping) is what the ratio shows.
"""
