"""Lexarium."""
