"""Inner problems, and families of them."""
