"""From stored predictors to weights."""
