"""The laptop stack: Postgres, NATS and the services as processes, first template, first claim."""
