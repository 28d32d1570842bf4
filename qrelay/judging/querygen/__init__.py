"""Questions written by an LLM from passages, for corpora without a query log.

    passages.py  reads a corpus and samples passages worth a question
    prompt.py    the prompt, and the strict reading of a reply
    faults.py    why a question is of no use
    generate.py  passages in, outcomes out; retries; stops when the engine does not answer
    journal.py   every outcome, durable: a killed run resumes
    outputs.py   queries, manifest and known-item labels from the journal

`qrelay queries generate` runs it, and asks the retriever for the round trip: does it find the passage again?

Dai et al., "Promptagator: Few-shot Dense Retrieval From 8 Examples" (2022, arXiv 2209.11755): write with a prompt,
keep what the retriever brings back to its source. The filter's idea: Alberti et al., "Synthetic QA Corpora Generation
with Roundtrip Consistency" (ACL 2019).
"""
