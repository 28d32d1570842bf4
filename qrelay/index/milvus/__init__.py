"""The engine `milvus`: BM25 and dense search in a Milvus cluster, for corpora past one machine."""
