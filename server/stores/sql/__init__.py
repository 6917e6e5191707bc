"""Stores in SQL, through SQLAlchemy Core."""
