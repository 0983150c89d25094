"""The worker processes: they lease lanes from the learner, estimate gradients, and push them back."""
