"""Everything that trains theta: truncation schedules, truncated steps, gradient estimators and the outer
learner.
"""
