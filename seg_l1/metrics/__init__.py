"""What is measured on a network: its scores, its zeros, its optimality."""
