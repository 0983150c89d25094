"""Everything that trains theta: schedules, truncated steps, gradient estimators and the outer learner."""
