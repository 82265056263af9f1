"""Programs behind the commands in this folder."""
