"""Carries out every attack."""

from attacks.attack import all_attacks, main

if __name__ == "__main__":
    main([attack for group in all_attacks().values() for attack in group])
