"""Serving: predictors are read from the database, and their weights are rendered and written as bytes."""
