"""Output for people: answers, tables, progress, and the standard streams."""
