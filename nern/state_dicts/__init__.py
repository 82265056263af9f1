"""Finding the state_dict in the content of a file."""

from nern.state_dicts.finding import MAX_DENSE_BYTES, Found, aliases, find_state_dict

__all__ = ["MAX_DENSE_BYTES", "Found", "aliases", "find_state_dict"]
