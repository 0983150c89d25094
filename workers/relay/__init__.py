"""The process between the learner and the workers of a node: one stream and one theta instead of many."""
