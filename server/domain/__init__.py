"""Rules: pure, synchronous, standard library only; time and ids come in as arguments."""
