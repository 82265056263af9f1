"""What runs where the training runs: claims a job, trains a predictor with `nern`, stores it."""
