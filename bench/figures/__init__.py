"""The figures, one family a file. See `bench/family.py` for what a file must have."""
