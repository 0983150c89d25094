"""Evaluation of a meta-trained theta."""
