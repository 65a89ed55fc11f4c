"""Synthetic languages whose entropy is known exactly, in every direction of reading."""
