"""The relay: a process between the learner and the workers of one node, which share its stream and its
thetas.
"""
