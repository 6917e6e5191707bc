"""The memory of the control plane: what is durable and how it is kept."""
