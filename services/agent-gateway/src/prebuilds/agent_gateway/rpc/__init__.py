"""The edge: requests into values, values into answers."""
