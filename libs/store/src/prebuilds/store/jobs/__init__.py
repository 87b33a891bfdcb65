"""The queue: builds of workspaces, the jobs behind them, and the agents they are to bring up."""
