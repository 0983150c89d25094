"""Functions that gradient estimators share: checks, accurate sums, reports, backpropagation."""
