"""What happens to jobs beside the database: workers are woken, and the sweep finds jobs that were lost."""
