"""Pools of worker processes for the supervisor: local processes and Ray actors."""
