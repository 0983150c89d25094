"""Objects built from configuration tables, and error messages for invalid tables and arguments."""
