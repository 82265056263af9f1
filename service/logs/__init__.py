"""The log of a process: lines of text, or lines of JSON."""
