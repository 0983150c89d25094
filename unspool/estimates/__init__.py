"""What gradient estimators of every kind share: checks, exact sums, reports, backpropagation."""
