"""The Alembic migrations of the database. `nern migrate` runs them."""
