"""The HTTP service: the FastAPI application, and the state of checkpoints, datasets, jobs and predictors."""
