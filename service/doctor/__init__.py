"""The checks of `unspool doctor`."""
