"""Alembic migrations; `nern migrate` runs them."""
