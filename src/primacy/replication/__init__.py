"""What is true of any log shipping."""
