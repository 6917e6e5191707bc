"""How server and agent write their own logs: one form, levels, files, nothing secret."""
