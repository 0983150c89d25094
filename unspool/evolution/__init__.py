"""The parts of evolution strategies: noise, loss differences, objectives, noise reuse."""
