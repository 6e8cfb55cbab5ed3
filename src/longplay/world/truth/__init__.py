"""What is true in a simulated service: of showing an item, and of a policy."""
