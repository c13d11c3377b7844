"""What steps do: one file for each step type, and the visible tuple that lists them."""
