"""What every server process stands on: settings, process, server, interceptors, identity, telemetry."""
