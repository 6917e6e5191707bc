"""What happens by itself, over time; one loop a file."""
