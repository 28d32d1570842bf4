"""The retriever: finds candidate passages for queries. gRPC and queue endpoints over `qrelay.index`."""
