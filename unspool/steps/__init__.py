"""Steps of unrolled systems, their wrappers, and unrolls."""
