"""The handover's two numbers and the states of a claim, moved in the transaction that causes the move."""
