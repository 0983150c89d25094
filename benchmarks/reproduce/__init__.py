"""Experiments of the papers behind the estimators, run again, with a bar that each row must clear."""
