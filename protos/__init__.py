"""The wire: the messages, the code generated from them, and the one codec."""
