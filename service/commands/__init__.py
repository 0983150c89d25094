"""The commands of `unspool`: what each takes, does and answers."""
