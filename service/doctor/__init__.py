"""What `unspool doctor` looks at."""
