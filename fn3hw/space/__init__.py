"""What may vary in a network: gates, subnets, and how they are found in a torch module."""
