"""What a user would take instead of Muster, set up to be durable, for the same workloads."""
