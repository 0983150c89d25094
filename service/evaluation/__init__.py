"""What a meta-trained theta is worth."""
