"""API keys have a form that scanners for secrets know."""

import re

from service.access import tokens


def test_a_new_key_has_the_form_of_a_key() -> None:
    made = {tokens.make() for _ in range(100)}
    assert len(made) == 100
    assert all(tokens.is_key(key) for key in made)
    assert all(re.fullmatch(r"nern_[0-9A-Za-z]{36}", key) for key in made)


def test_a_checksum_tells_a_key_from_other_text() -> None:
    key = tokens.make()
    changed = [key[:place] + ("a" if key[place] != "a" else "b") + key[place + 1 :] for place in range(len(key))]
    assert not any(tokens.is_key(other) for other in [*changed, "", "nern_", key[:-1], key + "0", key.removeprefix("nern_")])
