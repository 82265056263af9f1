"""Jobs outside of the database: new jobs are planned, workers are woken, and the sweep finds jobs that were lost."""
