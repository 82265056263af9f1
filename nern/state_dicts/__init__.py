"""Finding the state_dict in the content of a file."""

from nern.state_dicts.finding import Found, aliases, find_state_dict

__all__ = ["Found", "aliases", "find_state_dict"]
