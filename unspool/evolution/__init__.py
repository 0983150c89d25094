"""What evolution strategies are made of: noise, loss differences, objectives, noise reuse."""
