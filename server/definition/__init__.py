"""Pipeline files, conditions and schedules: parse, check, plan; no server is needed for it."""
