"""Programs that load a server from outside, as processes of their own."""
