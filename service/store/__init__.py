"""All state: the tables and every query.

A query is a function that takes a session. The caller opens the session and decides where its transaction begins and ends.
"""
