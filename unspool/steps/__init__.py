"""Steps of unrolled systems, and what wraps, repeats and unrolls them."""
