"""All state: the tables, and every query. Functions take a session; whoever opens it decides about the transaction."""
