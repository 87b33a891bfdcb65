"""JetStream: subjects, streams, publishing, subscribing and the relay of the outbox."""
