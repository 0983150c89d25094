"""Experiments from the papers behind the estimators, repeated, with a bar that each row must clear."""
