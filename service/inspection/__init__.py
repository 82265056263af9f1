"""Reading somebody's file: in a throw-away process, with limits, never with code that the file brings along."""
