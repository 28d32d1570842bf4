"""qrelay beside what people use otherwise: the same queries, passages, models and endpoint, by turns in one run.

__main__     the command, the rounds, the table
material     corpus, questions, answer key, cross-encoder
endpoints    the judge behind HTTP: a shipped double with 0.3 s of latency, or llama.cpp's server
autoqrels    auto-qrels' way, written from its description
mining       sentence-transformers' mine_hard_negatives and CrossEncoder.predict in a script
installed    qrelay: NATS and four services, in several arrangements of the judge
summary      rates, ratios with intervals, agreement and AUC of what was measured
"""
