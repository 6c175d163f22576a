"""What the end-to-end tests stand on: real processes, and waits that end."""
