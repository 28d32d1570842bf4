"""Do labels of utility train a better retriever than labels of relevance? See `__main__.py`."""
