"""Tokenizers of words in pieces, of bytes, and those made elsewhere."""
