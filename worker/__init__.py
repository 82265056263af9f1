"""The worker: claims jobs, trains predictors with `nern`, and stores the predictors."""
