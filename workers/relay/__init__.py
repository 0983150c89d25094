"""The relay: it connects the workers of one node to the learner through one stream and one theta cache."""
