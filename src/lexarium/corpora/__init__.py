"""Corpora: named sources of documents with disjoint splits. The contract is `foundation.types.Corpus`."""
