"""What becomes of uploaded datasets."""
