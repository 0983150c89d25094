"""Outer training: schedules, truncated steps, gradient estimators and the outer learner."""
